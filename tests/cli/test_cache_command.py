"""`gkd cache`: what it makes, checks, and says of prompts that stand twice."""

import numpy as np
import pytest

from gkd.cli import help_pages
from gkd.cli import main as command
from tests.data import tiny_caches

MODULE = """
from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import metrics
from gkd.text import postprocess

PROMPTS = {
  "train": ["one", "two", "one", "three", "one"], "test": ["four", "two"]}


def register(data_dir, vocabulary):
  for name in ("plain", "loud"):
    features.add_task(
      name,
      sources.rows_source(lambda split, name=name: [
        {"inputs": text, "targets": name}
        for text in PROMPTS[split]], tuple(PROMPTS), generated=True),
      vocabulary,
      postprocess=postprocess.strip,
      metrics=[metrics.accuracy],
    )
"""
GIN = """
MIXTURE_OR_TASK_NAME = 'plain'
TASK_MODULE = 'repeated_prompts'
TASK_FEATURE_LENGTHS = {'inputs': 8, 'targets': 8}
VOCABULARY = 'bytes'
TRAIN_SPLIT = 'train'
EVAL_SPLIT = 'test'
"""


def write(path, prompts):
  one = np.ones(1, np.int32)
  rows = [tiny_caches.Row(one, one, prompt, None) for prompt in prompts]
  return tiny_caches.write(path, rows, task=path.name)


def run(*arguments):
  return command.main(["cache", *map(str, arguments)])


@pytest.fixture
def task(tmp_path, monkeypatch):
  """Arguments that name a task of a module of the user's own."""
  pytest.importorskip("seqio")
  (tmp_path / "repeated_prompts.py").write_text(MODULE)
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / "task.gin").write_text(GIN)
  caches = tmp_path / "caches"
  return [f"--gin_file={tmp_path / 'task.gin'}", f"--cache_dir={caches}"]


def test_make_reports_prompts_that_stand_twice(task, capsys):
  assert run("make", *task, "--workers=1") == 0
  out = capsys.readouterr().out
  assert "plain train: fresh" in out
  assert "plain test: fresh" in out
  assert (
    "repeated prompts: 2 rows of plain train (40.00%) stand after another with"
    " the same prompt: 1 prompt, such as 'one'"
  ) in out
  assert (
    "shared prompts: 1 row of plain test (50.00%): 1 prompt is also in plain"
    " train, such as 'two'"
  ) in out
  # What to do with it.
  assert f"gkd train --gin_file=runs/sft.gin {task[0]} {task[1]}" in out


def test_what_a_vocabulary_loses_is_said_when_made_and_when_found(
  task, capsys, caplog
):
  lost = "1 of 5 inputs hold what the vocabulary does not keep (1 unknown"
  example = "'three' comes back as 'th⁇ee'"
  few = "--gin.VOCABULARY=characters:aefhilnoptuw"
  for _ in range(2):
    assert run("make", *task, few, "--workers=1") == 0
    out = capsys.readouterr().out
    assert lost in out
    assert example in out
    assert (
      "tokens before cutting (50/90/99 % of rows, all): inputs 4/6/6/6" in out
    )
  assert lost in caplog.text


def test_a_trained_vocabulary_says_its_lengths_and_what_it_loses(
  task, capsys, tmp_path
):
  arguments = [f"--output={tmp_path / 'own.model'}", "--size=272"]
  assert run("vocabulary", *task, *arguments) == 0
  out = capsys.readouterr().out
  assert "tokens before cutting (50/90/99 % of rows, all): inputs " in out
  assert "does not keep" not in out


def test_make_says_the_next_command_as_this_one_was_called(
  task, capsys, monkeypatch
):
  monkeypatch.setattr("sys.argv", ["/site/gkd/__main__.py", "cache", "make"])
  assert run("make", *task, "--split=test", "--workers=1") == 0
  assert "\n  python -m gkd train --gin_file=runs" in capsys.readouterr().out


def test_make_makes_the_caches_of_a_mixture(task, capsys):
  mixture = "--gin.MIXTURE={'plain': 3, 'loud': 1}"
  assert run("make", *task, mixture, "--split=train", "--workers=1") == 0
  out = capsys.readouterr().out
  assert "plain train: fresh" in out
  assert "loud train: fresh" in out
  assert "shared prompts: 5 rows of plain train (100.00%)" in out
  assert f'"{mixture}" --gin.TRAIN_SPLIT=train' in out  # as a shell reads it


def test_make_needs_a_split(capsys):
  assert run("make") == 2
  assert "no TRAIN_SPLIT and no EVAL_SPLIT" in capsys.readouterr().err


def test_check_says_what_is_wrong_and_goes_on(tmp_path, capsys):
  sound = write(tmp_path / "a", ["x", "y"])
  damaged = write(tmp_path / "b", ["z"])
  shard = next(damaged.path.glob("rows-*"))
  content = bytearray(shard.read_bytes())
  content[len(content) // 2] ^= 1
  shard.write_bytes(content)
  last = write(tmp_path / "c", ["y", " x ", "w"])
  missing = tmp_path / "none"
  paths = [sound.path, damaged.path, missing, last.path]
  assert run("check", *paths) == 2
  captured = capsys.readouterr()
  assert "a train: sound, every byte was read" in captured.out
  assert "c train: sound, every byte was read" in captured.out
  assert f"NOT SOUND: damaged cache: {shard} differs" in captured.out
  assert f"NOT SOUND: no cache at {missing}" in captured.out
  line = captured.err.strip().splitlines()[-1]
  assert line.startswith(
    f"gkd: 2 of 4 caches are not sound: {damaged.path}, {missing}; see above"
  )
  assert (
    "shared prompts: 2 rows of c train (66.67%): 2 prompts are also in a train,"
    " such as 'y', 'x'"
  ) in captured.out


def test_check_without_a_path_takes_all_of_the_folder(tmp_path, capsys):
  folder = f"--cache_dir={tmp_path}"
  assert run("check", folder) == 0
  assert f"no caches in {tmp_path}" in capsys.readouterr().out
  write(tmp_path / "a" / "train-0", ["x"])
  write(tmp_path / "b" / "train-0", ["y"])
  assert run("check", folder) == 0
  out = capsys.readouterr().out
  assert out.count("sound, every byte was read") == 2
  assert "shared prompts: none, no two of these caches" in out
  # A folder of caches is all of them.
  assert run("check", tmp_path / "a") == 0
  assert capsys.readouterr().out.count("sound, every byte was read") == 1


def test_completions_of_one_prompt_are_no_repetition(tmp_path, capsys):
  cache = tiny_caches.grouped(tmp_path / "c", [("a", 3), ("b", 3)])
  assert run("check", cache.path) == 0
  assert "repeated prompts: 4 rows" in capsys.readouterr().out
  info = (cache.path / "info.json").read_text()
  info = info.replace('"task":', '"written_by": {"seed": 0}, "task":')
  (cache.path / "info.json").write_text(info)
  assert run("check", cache.path) == 0
  assert "repeated prompts" not in capsys.readouterr().out


def test_a_wrong_column_is_found_before_anything_is_tokenised(tmp_path, capsys):
  for split, column in (("train", "country"), ("test", "land")):
    (tmp_path / f"{split}.csv").write_text(f"{column},city\nPeru,Lima\n")
  fields = "DATA_FIELDS = {'inputs': 'country', 'targets': 'city'}"
  own = GIN.replace("TASK_MODULE = 'repeated_prompts'", "DATA_FILES = '.'")
  (tmp_path / "own.gin").write_text(own + fields)
  flags = [f"--gin_file={tmp_path / 'own.gin'}", f"--data_dir={tmp_path}"]
  assert run("make", *flags, f"--cache_dir={tmp_path / 'caches'}") == 2
  said = capsys.readouterr().err
  assert "test.csv, line 2: there is no column 'country', but land, " in said
  assert not (tmp_path / "caches").exists()


def test_list_of_nothing_says_how_to_make_one(tmp_path, capsys):
  assert run("list", f"--cache_dir={tmp_path}") == 0
  assert "make one with gkd cache make" in capsys.readouterr().out


@pytest.mark.parametrize("action", ["list", "check"])
def test_a_folder_that_was_given_and_is_not_there_is_refused(
  tmp_path, capsys, monkeypatch, action
):
  assert run(action, f"--cache_dir={tmp_path / 'x'}") == 2
  assert "x' does not exist or is no folder; give" in capsys.readouterr().err
  monkeypatch.setenv("HOME", str(tmp_path))  # where nothing was made yet
  monkeypatch.delenv("GKD_CACHE_DIR", raising=False)
  assert run(action) == 0


def test_a_misspelt_setting_is_told_with_the_help_of_the_action(capsys):
  assert run("make", "--gin.TRAIN_SPLT=x") == 2
  assert "see gkd cache make --help and docs" in capsys.readouterr().err


def test_help_names_every_state_that_list_shows():
  page = help_pages.PAGES["cache list"]
  for state in (
    "fresh",
    "code fresh, raw files not tracked",
    "STALE",
    "DAMAGED",
    "HALF-MADE",
    "complete",
  ):
    assert state in " ".join(page.split())
