"""What a configuration says of the training data reaches the run."""

import pytest

from gkd.text.chain_addition import CHARACTERS
from gkd.text.vocabulary import CharacterVocabulary
from gkd.training import run_description
from gkd.types import UserError
from tests.cli import command_lines
from tests.data import tiny_caches


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
  """Two caches of 100 rows: 25 prompts with 4 targets each."""
  folder = tmp_path_factory.mktemp("caches")
  vocabulary = CharacterVocabulary(CHARACTERS)
  paths = []
  for task in ("a", "b", "scored"):
    rows = [
      tiny_caches.Row([3], [3 + k], f"{task} {prompt}", "1")
      for prompt in range(25)
      for k in range(4)
    ]
    cache = tiny_caches.write(
      folder / task, rows, task=task, vocabulary=vocabulary
    )
    paths.append(str(cache.path))
  return paths


def prepared(paths, *bindings, train=None):
  return command_lines.prepare(
    "test/sft.gin",
    *bindings,
    MODEL_DIR="run",
    TRAIN_LIMIT=None,
    TASK_FEATURE_LENGTHS=tiny_caches.LENGTHS,
    TRAIN_CACHE=train or paths[0],
    EVAL_CACHE=paths[2],
  )


def data_lines(run):
  lines = run.describe().splitlines()
  first = next(i for i, line in enumerate(lines) if line.startswith("data:"))
  last = next(i for i, line in enumerate(lines) if line.startswith("steps:"))
  return [line.removeprefix("data:").strip() for line in lines[first:last]]


def test_one_cache(paths):
  run = prepared(paths)
  assert data_lines(run) == ["a train, 100 rows"]
  steps = "steps:     20 of this run, absolute steps 0 to 20, of batch 16"
  assert steps in run.describe()


def test_caches_with_rates_and_a_fraction_of_each(paths):
  rates = {paths[0]: 3, paths[1]: 1.0}
  run = prepared(paths, "TRAIN_FRACTION=0.2", "SUBSET_SEED=7", train=rates)
  assert data_lines(run) == [
    "75 % a train, 20 of 100 rows, drawn by seed 7",
    "25 % b train, 20 of 100 rows, drawn by seed 7",
  ]
  rows = run.loader.batch(3).rows
  assert (rows < 100).sum() == 12
  assert (rows >= 100).sum() == 4


def test_fewer_prompts_at_constant_size(paths):
  run = prepared(paths, "TRAIN_LIMIT=20", "TARGETS_PER_PROMPT=4")
  assert data_lines(run) == [
    "a train, 20 of 100 rows: 5 prompts × 4 targets, drawn by seed 0",
  ]
  rows = {row for step in range(5) for row in run.loader.batch(step).rows}
  assert (len(rows), len({row // 4 for row in rows})) == (20, 5)
  assert run_description.describe(run)["num_rows"] == 20


def test_run_says_who_wrote_its_texts(paths, tmp_path):
  assert run_description.describe(prepared(paths))["training_text"] == {}
  rows = [tiny_caches.Row([3], [4], "a", "1")]
  written = {"checkpoint": "/runs/teacher", "seed": 3}
  vocabulary = CharacterVocabulary(CHARACTERS)
  tiny_caches.write(
    tmp_path / "text", rows, vocabulary=vocabulary, written_by=written
  )
  rates = {paths[0]: 1, str(tmp_path / "text"): 1}
  about = run_description.describe(prepared(paths, train=rates))
  assert about["training_text"] == {"text": {"written_by": written}}


MISTAKES = """
TRAIN_FRACTION=half
  TRAIN_FRACTION is 'half'; expected a number
SUBSET_SEED=1
  SUBSET_SEED is 1 but all rows are used
TARGETS_PER_PROMPT=5
  25 of 25 prompts of cache .* fewer than 5
MIXTURE={'x': 'y'}
  MIXTURE is .*expected a dict of text to a number
"""


@pytest.mark.parametrize(
  ("values", "message"), command_lines.mistakes(MISTAKES)
)
def test_mistakes_are_found_before_any_compile(paths, values, message):
  with pytest.raises(UserError, match=message):
    prepared(paths, *values)
