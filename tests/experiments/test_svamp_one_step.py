"""One-step stories: their calculations, and splits that share no story."""

import gzip
import json

import pytest

from gkd.experiments import svamp_one_step

LINES = (
  # In order of the text where order counts, by the alphabet where it does not.
  ("Dan had $ 3 left\nIf he had 14 before and 3 bags?", "( 14.0 - 3.0 )"),
  ("A pack of 4 pens costs 8 dollars. How much is 1?", "( 8.0 / 4.0 )"),
  ("There were 7 more than 25. How many?", "( 25.0 + 7.0 )"),
  ("Two steps of 1 and 2.", "( ( 1.0 + 2.0 ) + 2.0 )"),
  ("The 5 is not all that counts.", "( 5.0 * 6.0 )"),
  ("Take 5 from 5.", "( 5.0 - 5.0 )"),
)
EXPECTED = [
  ("dan had $ A left. if he had B before and A bags?", "B - A"),
  ("a pack of A pens costs B dollars. how much is C?", "B / A"),
  ("there were A more than B. how many?", "A + B"),
]


@pytest.fixture
def data_dir(tmp_path):
  path = tmp_path / svamp_one_step.FILE
  path.parent.mkdir()
  with gzip.open(path, "wt") as file:
    for inputs, equation in LINES:
      row = json.dumps({"inputs": inputs, "equation": equation})
      file.write(row + "\n")
  return tmp_path


def test_stories_have_letters_for_numbers_and_one_split_each(data_dir):
  found = [
    (row["inputs"], row["targets"])
    for split in svamp_one_step.SPLITS
    for row in svamp_one_step.rows(data_dir, split)
  ]
  assert sorted(found) == sorted(EXPECTED)
  words = "there were {} more than {}. how many?"
  sides = {svamp_one_step.split_of(words.format(n, n + 1)) for n in range(9)}
  assert len(sides) == 1
  others = {svamp_one_step.split_of("word " * n) for n in range(30)}
  assert others == set(svamp_one_step.SPLITS)
