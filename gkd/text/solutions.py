"""GSM8K solutions in words that any vocabulary keeps.

T5's vocabulary has no piece for `<`, braces, `~`, the backslash, `^`, `×` or
`÷`, and drops line ends. So the annotated "48/2 = <<48/2=24>>24" and the last
line "#### 24" would come back garbled. Here they become "48/2 = 24. The answer
is 24.", the form of Wei et al. 2022 (arXiv:2201.11903).
"""

import re

from gkd.text import numbers

_SYMBOLS = (
  ("<=", " is at most "),
  (">=", " is at least "),
  ("<", " is less than "),
  (">", " is more than "),
  ("{", "("),
  ("}", ")"),
  ("~", "about "),
  ("\\", " "),
  ("^", " to the power of "),
  ("×", "*"),
  ("÷", "/"),
  ("−", "-"),
  ("¢", " cents"),
  ("`", "'"),
  ("½", " 1/2"),
  ("¼", " 1/4"),
  ("¾", " 3/4"),
)


def rewrite_solution(text: str) -> str:
  """One line: annotations taken out, "#### N" as "The answer is N."."""
  solution, mark, answer = text.partition("####")
  lines = plain_text(numbers.remove_annotations(solution))
  if not mark:
    return lines
  value = answer.strip().replace(",", "")
  return f"{lines} {answer_sentence(value)}".strip()


def answer_sentence(answer: str) -> str:
  return f"The answer is {answer}."


def plain_text(text: str) -> str:
  """Lines joined as sentences, symbols without a T5 piece put in words."""
  lines = (line.strip() for line in text.splitlines())
  ended = [
    line if line[-1] in ".!?:;," else f"{line}." for line in lines if line
  ]
  text = " ".join(ended)
  for symbol, words in _SYMBOLS:
    text = text.replace(symbol, words)
  return re.sub(r"  +", " ", text).strip()
