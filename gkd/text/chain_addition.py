"""Generated arithmetic: chains of sums with worked steps and a final answer.

"37+85-46=" is solved as "37+85=122;122-46=76;A76". An early mistake spoils
every later step, which is what on-policy training is about. Problems are a
function of (seed, split, index), so there is no end of them and nothing to
store; a problem's split is decided by its content, so that no problem of one
split, nor a reordering of its terms, ever appears in another.
"""

import dataclasses
import hashlib
import random
import re

from gkd.errors import UserError

CHARACTERS = "0123456789+-=;A"
ANSWER_MARK = "A"
SPLITS = ("train", "validation", "test")
STYLES = ("equations", "sums", "answer")
# Parts in 100 of all problems that belong to validation and to test.
_VALIDATION_PARTS = 5
_TEST_PARTS = 5


@dataclasses.dataclass(frozen=True)
class Problem:
  inputs: str  # "37+85="
  targets: str  # "37+85=122;A122"
  answer: str  # "122"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainAddition:
  """A family of problems; its fields are the difficulty.

  Attributes:
    min_terms: fewest numbers in a chain.
    max_terms: most numbers in a chain; the number of terms is uniform.
    digits: most digits of a number.
    min_digits: fewest digits of a number; each number has a uniform number of
      digits and no leading zero.
    operators: "+", "-" or "+-"; results may be negative with "-".
    style: "equations" ("37+85=122;122+46=168;A168"), "sums" ("122;168;A168")
      or "answer" ("A168").
  """

  min_terms: int = 3
  max_terms: int = 3
  digits: int = 2
  min_digits: int = 1
  operators: str = "+"
  style: str = "equations"

  def __post_init__(self):
    _require(
      2 <= self.min_terms <= self.max_terms,
      f"terms {self.min_terms} to {self.max_terms}",
      "2 or more and min_terms at most max_terms",
    )
    _require(
      1 <= self.min_digits <= self.digits,
      f"digits {self.min_digits} to {self.digits}",
      "1 or more and min_digits at most digits",
    )
    _require(
      self.operators in ("+", "-", "+-"),
      f"operators {self.operators!r}",
      "'+', '-' or '+-'",
    )
    _require(self.style in STYLES, f"style {self.style!r}", f"one of {STYLES}")

  def problem(self, split: str, index: int, seed: int = 0) -> Problem:
    """Problem number `index` of a split; the same on every machine."""
    _require(split in SPLITS, f"split {split!r}", f"one of {SPLITS}")
    # A string seed is hashed by SHA-512, whatever PYTHONHASHSEED is.
    rng = random.Random(f"{self!r}/{seed}/{split}/{index}")
    for _ in range(10_000):
      terms = self._draw(rng)
      if split_of(terms) == split:
        return self.solve(terms)
    raise UserError(
      f"{self!r} has no problem in split {split!r}: expected enough different "
      "problems for three splits; add terms or digits"
    )

  def problems(self, split: str, number: int, seed: int = 0) -> list[Problem]:
    """The first `number` problems of a split that differ from each other."""
    different: dict[str, Problem] = {}
    for index in range(20 * number + 1001):
      if len(different) == number:
        return list(different.values())
      problem = self.problem(split, index, seed)
      different.setdefault(problem.inputs, problem)
    raise UserError(
      f"{number} different problems of split {split!r} wanted,"
      f" {len(different)} found in {index + 1} draws of {self!r}: add terms or"
      " digits, or ask for fewer"
    )

  def solve(self, terms: list[int]) -> Problem:
    """The problem and its worked solution for signed terms."""
    inputs = str(terms[0]) + "".join(f"{term:+d}" for term in terms[1:]) + "="
    total = terms[0]
    steps = []
    for term in terms[1:]:
      result = total + term
      if self.style == "equations":
        steps.append(f"{total}{term:+d}={result}")
      elif self.style == "sums":
        steps.append(str(result))
      total = result
    targets = ";".join([*steps, f"{ANSWER_MARK}{total}"])
    return Problem(inputs=inputs, targets=targets, answer=str(total))

  def _draw(self, rng: random.Random) -> list[int]:
    terms = []
    for position in range(rng.randint(self.min_terms, self.max_terms)):
      digits = rng.randint(self.min_digits, self.digits)
      low = 0 if digits == 1 else 10 ** (digits - 1)
      term = rng.randint(low, 10**digits - 1)
      if position and rng.choice(self.operators) == "-":
        term = -term
      terms.append(term)
    return terms


def split_of(terms: list[int]) -> str:
  """The split a problem belongs to: a hash of its terms, in any order."""
  content = ",".join(str(term) for term in sorted(terms))
  digest = hashlib.blake2b(content.encode(), digest_size=8).digest()
  part = int.from_bytes(digest, "big") % 100
  if part < _TEST_PARTS:
    return "test"
  return "validation" if part < _TEST_PARTS + _VALIDATION_PARTS else "train"


def parse_answer(text: str) -> str | None:
  """The number behind the last answer mark, if nothing follows it.

  Example:
    >>> parse_answer("37+85=122;A122"), parse_answer("37+85=122;1")
    ('122', None)
  """
  # A model may write on without end, and Python's int takes 4,300 digits.
  pattern = rf".*{ANSWER_MARK}(-?\d{{1,1000}})"
  match = re.fullmatch(pattern, text.strip(), re.DOTALL)
  return str(int(match[1])) if match else None


def _require(condition: bool, given: str, expected: str) -> None:
  if not condition:
    raise UserError(
      f"chain addition with {given}: expected {expected}; change it"
    )
