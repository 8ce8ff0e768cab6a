"""Answer extraction and the calculator; labels of real solutions if present."""

from fractions import Fraction
import gzip
import json

import pytest

from gkd.text import numbers


@pytest.mark.parametrize(
  ("text", "answer"),
  [
    ("48/2 = 24 clips.\n#### 24", "24"),
    ("The answer is 72.", "72"),
    ("the answer is $1,234,567.50.", "1234567.5"),
    ("The answer is: -3", "-3"),
    ("The answer is -$5.", "-5"),
    ("The answer is $-5.", "-5"),
    ("The answer is 20%.", "20"),
    ("The answer is .5", "0.5"),
    ("The answer is 1/4 of it.", "0.25"),
    ("The final answer is 8.00", "8"),
    ("The answer is 3 + 4 = 7 apples. Well, 9?", "7"),
    ("The answer is 5. Wait. The answer is 6.", "6"),
    ("A: 26", "26"),
    ("So x is 12\nA: 1,000", "1000"),
    ("There are 5-3 or 2 left", "2"),
    ("It went from 10 to -4", "-4"),
    ("10-4", "4"),
    ("He has 12 apples.", "12"),
    ("#### 1.5e", "1.5"),
    ("pages 3,4", "4"),
    ("The answer is 3 1/2.", "3.5"),
    ("A: 3½ cups", "3.5"),
    ("1\n/ 2", "0.5"),
    ("It fell by -1 1 / 4", "-1.25"),
    ("2 of ⅔", "0.666667"),
    ("The answer is:\n24\nof 25", "24"),
    ("####\n\n$24", "24"),
    ("final answer is 7 of 9", "7"),
    ("The answer is many. 12 or so", None),
    ("#### ", None),
    ("no number", None),
    ("", None),
  ],
)
def test_answer_is_found(text, answer):
  assert numbers.extract_answer(text) == answer


# github.com/google-research/FLAN, flan/v2/templates.py: the ends of the ten
# targets of "cot_gsm8k", and what explains an answer that comes first.
@pytest.mark.parametrize(
  "rest",
  [
    *("", ".", ". Tom has 3.", ".\nExplanation: 5+8 = 13"),
    *("\nExplanation: 5+8 = 13", " Explanation: 5+8 = 13.", " since 5+8 = 13"),
  ],
)
@pytest.mark.parametrize(
  "marker",
  [
    *("Therefore, the answer is", "So, the answer is", "The answer:"),
    *("So the final answer is", "Final answer:", "So the answer is"),
    *("The final answer:", "Thus, the answer is"),
  ],
)
def test_answers_of_flan_templates_are_found_whatever_follows(marker, rest):
  for before in ("5+7 = 12. ", ""):  # and an answer that comes first
    assert numbers.extract_answer(f"{before}{marker} 12{rest}") == "12"


@pytest.mark.parametrize(
  ("number", "text"),
  [
    ("007", "7"),
    ("-1.50", "-1.5"),
    ("1,000", "1000"),
    ("0.0", "0"),
    (Fraction(-1, 8), "-0.125"),
    (Fraction(2, 3), "0.666667"),
    (Fraction(-1, 10**9), "0"),
    (Fraction(1999999999, 10**9), "2"),
  ],
)
def test_canonical_spelling(number, text):
  assert numbers.canonical(number) == text


@pytest.mark.parametrize(
  ("wrong", "right"),
  [
    ("2+3 = 6", "2+3 = 5"),
    ("2 x 3 = 5", "2 x 3 = 6"),
    ("7 × 8 = 54 and 9 ÷ 3 = 2", "7 × 8 = 56 and 9 ÷ 3 = 3"),
    ("(2+3)*4 = 14", "(2+3)*4 = 20"),
    ("2+3*4 = 20", "2+3*4 = 14"),
    ("10 - 20 = 10", "10 - 20 = -10"),
    ("$1,000 * 3 = $300", "$1,000 * 3 = $3000"),
    ("50 * 20% = 100", "50 * 20% = 10"),
    ("1/0 = 5", "1/0 = 5"),
    ("100/3 = 33.33", "100/3 = 33.33"),
    ("100/3 = 33.4", "100/3 = 33.333333"),
    ("100 - 60 = 40%", "100 - 60 = 40%"),
    ("$2.50 - $2.24 = 26 cents", "$2.50 - $2.24 = 26 cents"),
    ("12 slices * 1/3 = 4", "12 slices * 1/3 = 4"),
    ("3/2 = 1 1/2 hours", "3/2 = 1 1/2 hours"),
    ("5 pots * $3 per pot = $20", "5 pots * $3 per pot = $20"),
    ("x + 2 = 5", "x + 2 = 5"),
    ("2+2 = 3+1 = 5", "2+2 = 3+1 = 4"),
    ("-48 + 21 = -30\n-30/3 = -10", "-48 + 21 = -27\n-27/3 = -9"),
    # A correction reaches the final answer,
    (
      "48/2 = 25 clips. 48+25 = 75. The answer is 75.",
      "48/2 = 24 clips. 48+24 = 72. The answer is 72.",
    ),
    # no number that was known before,
    (
      "He has 25 pens. 48/2 = 25. With his 25 pens: 24+25 = 49.",
      "He has 25 pens. 48/2 = 24. With his 25 pens: 24+25 = 49.",
    ),
    # and no longer number.
    ("2*3 = 5. 15 and 5.5 and 5,000, 5.", "2*3 = 6. 15 and 5.5 and 5,000, 6."),
    # The same value is the same number, with a comma or without.
    ("2*600 = $1,300. He has $1300.", "2*600 = $1200. He has $1200."),
    ("2*600 = 1300. 1,300.5, 1,300", "2*600 = 1200. 1,300.5, 1200"),
    ("1-2,002 = -2,000. −2000", "1-2,002 = -2001. -2001"),
  ],
)
def test_results_are_recomputed(wrong, right):
  assert numbers.recompute(wrong) == right


def test_a_model_may_write_any_depth_and_without_end():
  deep, digits = "1+(" * 330 + "1+1" + ")" * 330, "9" * 5000
  assert numbers.recompute(f"{deep} = 3") == f"{deep} = 332"
  assert numbers.recompute(f"2+2 = 5 of {digits}") == f"2+2 = 4 of {digits}"
  for text in (
    "(" * 330 + "1+1" + ")" * 330 + " = 3",
    "(" * 5000 + "1+1 = 3",
    "-" * 5000 + "1+1 = 3",
    "1 + " * 5000 + "1 apples",  # by the square of it: a minute
    "1 + " * 5000 + "1 =",
    "1+" * 50000 + "1 1 = 3",  # by the square of it: ten minutes
    "1+1 = " + "9" * 100000 + " 1",
    "1+" * 1000 + "1 = 3",
    f"{digits} + 1 = 2",
    f"2+2 = {digits}",
  ):
    assert numbers.recompute(text) == text
  for text in (digits, f"-{digits}", f"1/{digits}", f"1 1/{digits}"):
    assert numbers.extract_answer(text) is None


def test_a_number_of_the_question_is_not_replaced():
  recomputed = numbers.recompute("2*3 = 25. 25+1 = 26", "Of 25 people")
  assert recomputed == "2*3 = 6. 25+1 = 26"


@pytest.mark.parametrize(
  ("text", "plain"),
  [
    ("sold 48/2 = <<48/2=24>>24 clips", "sold 48/2 = 24 clips"),
    ("is 2*3 = $<<2*3=6>>6.", "is 2*3 = $6."),
    ("earns $<<3*4=12>>12", "earns 3*4 = $12"),
    ("has <<5=5>>5 cats", "has 5 cats"),
  ],
)
def test_annotations_go_without_losing_a_calculation(text, plain):
  assert numbers.remove_annotations(text) == plain


def test_extraction_reproduces_the_labels_of_real_solutions(data_dir):
  gold = {
    row["id"]: numbers.canonical(row["answer_number"])
    for row in _rows(data_dir, "gsm8k_test")
  }
  rows = _rows(data_dir, "gsm8k_test_model_solutions")
  wrong = [
    row["id"]
    for row in rows
    if (numbers.extract_answer(row["targets"]) == gold[row["id"]])
    != row["is_correct"]
  ]
  assert len(rows) == 5276
  assert wrong == []


def test_calculator_keeps_the_answers_of_human_solutions(data_dir):
  rows = _rows(data_dir, "gsm8k_train")
  changed = 0
  for row in rows:
    expected = numbers.canonical(row["answer_number"])
    assert numbers.extract_answer(row["targets"]) == expected
    repaired = numbers.recompute(row["targets"], row["inputs"])
    changed += numbers.extract_answer(repaired) != expected
  # Solutions whose written arithmetic is wrong or means "a / (b/c)".
  assert changed <= 15


def test_corrections_reach_real_answers_spelled_without_the_comma(data_dir):
  reached = 0
  for row in _rows(data_dir, "gsm8k_test"):
    solution, _, answer = row["targets"].rpartition("\n#### ")
    spelled = f"{int(answer.replace(',', '')):,}"
    wrong = int(spelled.replace(",", "")) + 1
    if spelled != answer:
      text = numbers.remove_annotations(solution)
      text = text.replace(spelled, f"{wrong:,}") + f"\n#### {wrong}"
      repaired = numbers.recompute(text, row["inputs"])
      reached += numbers.extract_answer(repaired) == answer
  # The others calculate over words ("10,800 widgets/month * $6/widget").
  assert reached >= 12


def _rows(data_dir, name):
  path = data_dir / "arithmetic" / f"{name}.jsonl.gz"
  with gzip.open(path, "rt", encoding="utf-8") as lines:
    return [json.loads(line) for line in lines]
