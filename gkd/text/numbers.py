"""Numbers in solutions: which one is the answer, and is the arithmetic right.

`recompute` is an external calculator for text that is already written: Cobbe et
al. 2021 (arXiv:2110.14168) overrides the result of an annotated calculation
while the model writes; solutions without annotations, as GKD's, are repaired
afterwards.
"""

from fractions import Fraction
import re
import unicodedata

# Characters of a number or a calculation that is read. A model may write on
# without end, and Python's int takes 4,300 digits.
_LONGEST = 2000

_NUMBER = r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
# A minus belongs to the number unless it stands between two values ("5-3").
_SIGNED = re.compile(
  rf"(?P<sign>(?<![\w)%.])[-−–]\s?)?(?:\$\s?(?P<sign2>[-−]?))?(?P<value>{_NUMBER})"
  r"(?:(?:[ ]+(?P<part>\d+))?\s?/\s?(?P<below>[1-9]\d*)(?![\d.]))?"
)
_VULGAR = re.compile("[¼-¾⅐-⅞]")  # ½ and its like
_MARKER = re.compile(
  r"####|\b(?:the (?:final )?|final )answer (?:is|=)|\banswer:"
  r"|(?:^|\n)[^\S\n]*A:",
  re.IGNORECASE,
)
# What explains an answer that comes first has numbers of its own; T5's
# vocabulary leaves no line end before it.
_CLAUSE_END = re.compile(
  r"\n|\.(?=\s|$)|\b(?:explanation|because|since)\b", re.IGNORECASE
)
_ANNOTATION = re.compile(r"<<([^<>]*)>>")

# Blanks before a number belong to what stands before it: with two ways to read
# each blank, a sum without "=" takes a time exponential in its length. Without
# the bound of 99 a run of blanks takes one quadratic in its length.
_TOKEN = rf"(?:\$[ ]?)?(?:{_NUMBER})%?"
_OPERATOR = r"(?:[-+*/×÷−–]|[xX](?=[ ]*[($\d.]))"
# Numbers, operators and brackets, at least one operator, then "= result"; a
# result that goes on ("= 1 1/2", "= 40 + 2") is none.
_RESULT = re.compile(
  rf"=[ ]*\$?[ ]?(?P<result>[-−]?(?:{_NUMBER}))(?!,*\d|\.\d)"
  rf"(?P<percent>%?)(?![ ]*{_OPERATOR}[ ]*[$\d(]|[ ]\d)"
)
_SPAN = re.compile(
  rf"(?<![\w.,/%)*×÷])(?P<left>[-−( ]{{0,99}}{_TOKEN}"
  rf"(?:[ )]*{_OPERATOR}[ (]*{_TOKEN})+[ )]*){_RESULT.pattern}"
)
# The left side of a span read backwards, from "=" as far as it is one.
_TOKEN_REVERSED = (
  r"%?(?:\d+\.(?!\d)|(?:\d+\.)?(?:(?:\d{3},)+\d+|\d+))(?:[ ]?\$)?"
)
_REVERSED = re.compile(
  rf"[ )]*(?:{_TOKEN_REVERSED}[ (]*[-+*/×÷−–xX][ )]*)+"
  rf"{_TOKEN_REVERSED}[-−( ]{{0,99}}"
)
# What stands before a span belongs to it: "12 slices * 1/3", "1 1/2 + 2".
_CONTINUED = re.compile(r"(?:[-+*/×÷−–(\d%)]|(?<![a-zA-Z])[xX])[ ]*\Z")


def extract_answer(text: str) -> str | None:
  """The final answer as canonical text, or None if there is none.

  After the last "####", "The answer is", "Answer:" or "A:" the answer is the
  first number, or the one behind "=" in an equation; a marker without a number
  means no answer. Text without any marker answers with its last number. "1/2"
  becomes "0.5" and "3 1/2" or "3½" "3.5", see `canonical`.

  Example:
    >>> extract_answer("He pays 2*$600 = $1200. The answer is $1,200.")
    '1200'
  """
  text = _VULGAR.sub(_fraction_text, text)
  markers = list(_MARKER.finditer(text))
  if not markers:
    matches = list(_SIGNED.finditer(text))
    return _value_text(matches[-1]) if matches else None
  clause = text[markers[-1].end() :].lstrip(" \t\r\n:=")
  end = _CLAUSE_END.search(clause)
  clause = clause[: end.start()] if end else clause
  match = _SIGNED.search(clause.rpartition("=")[2]) or _SIGNED.search(clause)
  return _value_text(match) if match else None


def canonical(number: str | Fraction) -> str:
  """One spelling for one value: "1,200.50" and "1200.5" are both "1200.5".

  A fraction that no short decimal equals is rounded to 6 decimals. Text too
  long to be a number stays as it is.

  Example:
    >>> canonical("1,200.50"), canonical("-0"), canonical(Fraction(1, 3))
    ('1200.5', '0', '0.333333')
  """
  if isinstance(number, str):
    if len(number) > _LONGEST:
      return number
    number = Fraction(number.replace(",", ""))
  if number.denominator == 1:
    return str(number.numerator)
  scaled = round(abs(number) * 10**6)
  whole, decimals = divmod(scaled, 10**6)
  text = f"{whole}.{decimals:06d}".rstrip("0").rstrip(".")
  return f"-{text}" if number < 0 and scaled else text


def recompute(text: str, given: str = "") -> str:
  """Corrects every "a op b = c" and carries a corrected c to later text.

  A later number equal to the wrong c is taken to mean the result and replaced,
  unless that number also stood in the solution before the calculation or in
  `given`: then it may be another quantity. A c that is only rounded to fewer
  decimals is right. Calculations over words ("5 pots * $3") are left alone.

  Args:
    text: a solution, with or without `<<a=b>>` annotations (removed).
    given: the question, whose numbers are never replaced.

  Example:
    >>> recompute("48/2 = 25 clips. 48+25 = 75. The answer is 75.")
    '48/2 = 24 clips. 48+24 = 72. The answer is 72.'
  """
  rest = remove_annotations(text)
  seen = _values(given)
  done = ""
  while match := _first_span(rest):
    start, end = match.span("result")
    right = _corrected(match, done + rest[: match.start()])
    if right is None:
      done, rest = done + rest[:end], rest[end:]
      continue
    wrong = match["result"]
    before = done + rest[:start]
    done, rest = before + right, rest[end:]
    if not _values(wrong) & (seen | _values(before)):
      rest = _replaced(rest, wrong, right)
  return done + rest


def remove_annotations(text: str) -> str:
  """GSM8K text without `<<a=b>>`, no calculation lost.

  Most annotations repeat what stands before them: "48/2 = <<48/2=24>>24"
  becomes "48/2 = 24". Where nothing stands before, the annotation takes its
  place: "She earns $<<3*4=12>>12" becomes "She earns 3*4 = $12".
  """
  parts = []
  position = 0
  for match in _ANNOTATION.finditer(text):
    before = text[position : match.start()]
    position = match.end()
    left, equals, _ = match[1].rpartition("=")
    already = before.rstrip(" $").endswith("=")
    if not already and equals and re.search(r"[-+*/]", left[1:]):
      head = before.rstrip("$ ")
      tail = before[len(head) :]
      gap = " " if head and not head.endswith(("(", "\n")) else ""
      before = f"{head}{gap}{left.strip()} = {tail.strip()}"
    parts.append(before)
  return "".join(parts) + text[position:]


def _fraction_text(match: re.Match) -> str:
  return " " + unicodedata.normalize("NFKC", match[0]).replace("⁄", "/")


def _value_text(match: re.Match) -> str | None:
  if len(match[0]) > _LONGEST:
    return None
  value = Fraction(match["value"].replace(",", ""))
  below = int(match["below"] or 1)
  if match["part"]:  # 3 1/2
    value += Fraction(int(match["part"]), below)
  else:
    value /= below
  negative = bool(match["sign"]) or bool(match["sign2"])
  return canonical(-value if negative else value)


def _values(text: str) -> set[str]:
  return {
    canonical(number)
    for match in _SIGNED.finditer(text)
    for number in (match["value"], match["part"])
    if number
  }


def _replaced(text: str, wrong: str, right: str) -> str:
  """The text with `right` for `wrong`, whether spelled 1,200 or 1200.

  Whole numbers alone: 25 stays inside 125 and 25.5. Decimals count: in human
  solutions $60.00 is often another quantity than the result 60.
  """
  sign = "[-−]" if wrong[0] in "-−" else ""
  value = wrong.lstrip("-−").replace(",", "")
  return re.sub(
    rf"(?<![\d.,]){sign}(?P<value>{_NUMBER})(?!\d|[.,]\d)",
    lambda m: right if m["value"].replace(",", "") == value else m[0],
    text,
  )


def _first_span(text: str) -> re.Match | None:
  """`_SPAN.search(text)` in linear time.

  A model may write sums without end and without a result, each number of which
  would be the start of another search through the rest.
  """
  backwards, length = text[::-1], len(text)
  for result in _RESULT.finditer(text):
    end = result.start()
    if left := _REVERSED.match(backwards, length - end):
      for start in range(length - left.end(), end):
        if match := _SPAN.match(text, start):
          return match
  return None


def _corrected(match: re.Match, before: str) -> str | None:
  """The right result of a calculation, None where nothing has to change."""
  if len(match[0]) > _LONGEST or _CONTINUED.search(before):
    return None
  value = _evaluate(match["left"])
  if value is None:
    return None
  candidates = [value]
  # "100 - 60 = 40%", "20% + 30% = 50%", "$2.50 - $2.24 = 26 cents".
  if "%" in match[0] or re.match(r" cents?\b", match.string[match.end() :]):
    candidates.append(value * 100)
  written = Fraction(match["result"].replace(",", "").replace("−", "-"))
  _, _, decimals = match["result"].partition(".")
  for candidate in candidates:
    if written == candidate:
      return None
    # Rounded, or cut, to the decimals it is written with.
    unit = Fraction(1, 10 ** len(decimals))
    rounded = abs(written - candidate) <= unit / 2
    cut = 0 <= abs(candidate) - abs(written) < unit
    if decimals and written * candidate > 0 and (rounded or cut):
      return None
  return canonical(min(candidates, key=lambda c: abs(written - c)))


def _evaluate(expression: str) -> Fraction | None:
  """The value of + - * / and brackets over numbers; None if it has none."""
  plain = expression.replace(",", "").replace("$", "")
  for symbols, operator in (("×xX", "*"), ("÷", "/"), ("−–", "-")):
    for symbol in symbols:
      plain = plain.replace(symbol, operator)
  tokens = re.findall(r"\d+\.?\d*%?|\.\d+%?|[-+*/()]", plain)
  try:
    # No recursion: a model may write any number of brackets.
    while "(" in tokens:
      start = len(tokens) - 1 - tokens[::-1].index("(")
      end = tokens.index(")", start)
      tokens[start : end + 1] = [_flat(tokens[start + 1 : end])]
    return _flat(tokens)
  except (ValueError, ZeroDivisionError):
    return None


def _flat(tokens: list[str | Fraction]) -> Fraction:
  """The value of numbers with operators between them, without brackets."""
  terms: list[Fraction] = []
  operator, negative = "+", False  # of the next number; "" behind a number
  for token in tokens:
    if not operator and token in ("+", "-", "*", "/"):
      operator = token
    elif operator and token == "-":
      negative = not negative
    elif operator:
      number = -_number(token) if negative else _number(token)
      if operator == "*":
        terms[-1] *= number
      elif operator == "/":
        terms[-1] /= number
      else:
        terms.append(-number if operator == "-" else number)
      operator, negative = "", False
    else:
      raise ValueError("a number or a bracket behind a number")
  if operator:
    raise ValueError("an operator without a number")
  return sum(terms, Fraction(0))


def _number(token: str | Fraction) -> Fraction:
  if isinstance(token, str) and token.endswith("%"):
    return Fraction(token[:-1]) / 100
  return Fraction(token)
