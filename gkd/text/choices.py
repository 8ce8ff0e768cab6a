"""The letter that answers a multiple-choice question."""

import re

_BRACKETED = re.compile(r"\(([A-Za-z])\)")
# "the answer is (b)", "Answer: Option B", "ANS:A", "#### E", "answer is c)"; a
# small letter that goes on as a text is an article.
_ANSWER = re.compile(
  r"(?:####|\b(?:ans(?:wer)?|option)\b(?:[\s:=–-]*(?:is|will|be|option)\b)*)"
  r"[\s:=–-]*"
  r"(?:\(([a-z])\)|([a-z])(?=\s*(?:\)|[.,:]?\s*$|\.\s))|((?-i:[A-Z]))(?![\w'’]))",
  re.IGNORECASE,
)
_ALONE = re.compile(r"\s*([A-Za-z])\s*(?:[).:]|$)")


def extract_choice(text: str) -> str | None:
  """The letter of the answer as a capital, or None if there is none.

  It is the last one behind "the answer is", "answer:", "option" or "####". Text
  without any answers with its last letter in brackets, or by being a letter.

  Example:
    >>> extract_choice("So 15 + 10 = 25. The answer is (b) 25.")
    'B'
  """
  letters = ["".join(found) for found in _ANSWER.findall(text)]
  letters = letters or _BRACKETED.findall(text)
  if letters:
    return letters[-1].upper()
  match = _ALONE.match(text)
  return match[1].upper() if match else None
