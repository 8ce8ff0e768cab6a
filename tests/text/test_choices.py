"""Letters of multiple-choice answers; keys of real rationales if present."""

import gzip
import json

import pytest

from gkd.text import choices


@pytest.mark.parametrize(
  ("text", "letter"),
  [
    ("So 15 + 10 = 25. The answer is (b).", "B"),
    ("The answer is (e) 50 km.", "E"),
    ("the answer is c)", "C"),
    ("The answer is B because (a) is too small.", "B"),
    ("Answer: (a). No, the answer is (d).", "D"),
    ("The answer: C\nExplanation: (a) is wrong", "C"),
    ("ANS:A", "A"),
    ("Correct answer - D", "D"),
    ("Correct Option:OPTION E", "E"),
    ("Hence answer will be A. 5", "A"),
    ("x = 3\n#### E", "E"),
    ("B", "B"),
    (" b) 12", "B"),
    ("(c)", "C"),
    ("Not (a), so (b)", "B"),
    ("The answer is a long story.", None),
    ("I'd say the answer is I'm not sure", None),
    ("A good one", None),
    ("The answer is (b) 25. Option A is wrong.", "B"),
    ("So option C holds.", "C"),
    ("the answer is **B**", "B"),
    ("Answer: $B$", "B"),
    ("Answer Choices: (a) 1 (b) 2. The answer is 25", None),
    ("The answer is x = 3, that is (b)", "B"),
    ("12", None),
    ("", None),
  ],
)
def test_letter_is_found(text, letter):
  assert choices.extract_choice(text) == letter


def test_a_model_may_write_markers_without_end():
  for text in ("answer" + " " * 50000, "answer is " * 20000 + "12"):
    assert choices.extract_choice(text) is None


def test_letters_of_real_rationales_are_the_keys(data_dir):
  number, wrong = 0, []
  for file in ("dev", "test"):
    path = data_dir / "arithmetic" / f"aqua_{file}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
      for row in map(json.loads, lines):
        found = choices.extract_choice(row["rationale"])
        number += found is not None
        if found not in (None, row["correct"]):
          wrong.append(row["id"])
  # The others end without naming a letter.
  assert number > 450
  assert len(wrong) <= 3
