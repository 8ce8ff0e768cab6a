"""The letter that answers a multiple-choice question."""

import re

_BRACKETED = re.compile(r"\(([A-Za-z])\)")
# "the answer is (b)", "Answer: Option B", "ANS:A", "#### E", "answer is **c**";
# a small letter that goes on as a text is an article.
_MARKS = r"[\s:=–*$-]*"
_IS = rf"\b(?:{_MARKS}(?:is|will|be|option)\b)*{_MARKS}"
_LETTER = (
  r"(?:\(([a-z])\)|([a-z])(?=\s*(?:\)|[.,:*$]*\s*$|\.\s))"
  r"|((?-i:[A-Z]))(?![\w'’]|\s*=))"
)
_ANSWER = re.compile(rf"(?:#{{4}}{_MARKS}|\bans(?:wer)?{_IS}){_LETTER}", re.I)
_OPTION = re.compile(rf"\boption{_IS}{_LETTER}", re.I)
_VALUE = re.compile(rf"\banswer{_IS}\d", re.I)
_ALONE = re.compile(r"\s*([A-Za-z])\s*(?:[).:]|$)")


def extract_choice(text: str) -> str | None:
  """The letter of the answer as a capital, or None if there is none.

  It is the last one behind "the answer is", "answer:" or "####", else behind
  "option". Text without any answers with its last letter in brackets, after
  "the answer is 25" where it has that, or by being a letter.

  Example:
    >>> extract_choice("So 15 + 10 = 25. The answer is (b) 25.")
    'B'
  """
  named = _ANSWER.findall(text) or _OPTION.findall(text)
  letters = ["".join(found) for found in named]
  letters = letters or _BRACKETED.findall(_VALUE.split(text)[-1])
  if letters:
    return letters[-1].upper()
  match = _ALONE.match(text)
  return match[1].upper() if match else None
