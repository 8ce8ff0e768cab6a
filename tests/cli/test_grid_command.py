"""A grid of two tiny runs from its file to the report, and what is refused."""

import json
from pathlib import Path
import re

import pytest

from gkd import locks
from gkd.cli import main as command
from gkd.config import configuration
from gkd.experiments.grid import runner
from gkd.report import read
from gkd.report import results
from tests.cli.command_lines import error_of
from tests.cli.command_lines import write_caches

GRID = """
title = "Two parts"
seeds = [5]
gin_files = ["test/sft.gin", "short.gin"]
# One device, and fusions as tests/conftest.py has them emitted.
environment.XLA_FLAGS = "--xla_cpu_use_fusion_emitters=false"

[stages.tuned]
command = "train"
set = {{TRAIN_CACHE = "{TRAIN_CACHE}", EVAL_CACHE = "{EVAL_CACHE}"}}
axes.SUBSET_SEED = [1, 2]
"""
SHORT = "TRAIN_STEPS = 2\nBATCH_SIZE = 8\nEVAL_EXAMPLES = 8\nTRAIN_LIMIT = 32"
SHIPPED = sorted(configuration.config_folder().rglob("*.toml"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A file, and the folder of its grid."""
  folder = tmp_path_factory.mktemp("grid")
  caches = write_caches(folder / "caches")
  (folder / "grid.toml").write_text(GRID.format(**caches))
  (folder / "short.gin").write_text(SHORT)
  assert command.main(arguments(folder / "grid.toml", folder / "out")) == 0
  return folder / "grid.toml", folder / "out"


def arguments(file, output, *flags):
  return ["grid", str(file), f"--output={output}", "--data_dir=", *flags]


@pytest.fixture
def changed(made, tmp_path):
  """`changed(old, new)`: arguments of the file with another text in it."""
  file, output = made
  (tmp_path / "short.gin").write_text(SHORT)

  def changed(old, new, *flags, output=output):
    assert old in file.read_text()
    (tmp_path / "grid.toml").write_text(file.read_text().replace(old, new))
    return arguments(tmp_path / "grid.toml", output, *flags)

  return changed


def test_a_grid_ends_in_a_table_of_numbers_for_the_report(made):
  _, folder = made
  table = results.read(str(folder))
  assert [row["run"] for row in table.rows] == ["tuned-1", "tuned-2"]
  for row, part in zip(table.rows, (1, 2), strict=True):
    assert (row["seed"], row["SUBSET_SEED"], row["step"]) == (5, part, 2)
    assert row["train/loss"] > 0
    assert row["seconds"] > 0
  name = "eval/chain_addition_easy/accuracy"
  column = {"title": "accuracy", "unit": "%", "direction": "max"}
  assert table.columns[name] == column
  shown = results.table(table)
  assert [row[0].text for row in shown.rows] == ["tuned: 1", "tuned: 2"]
  assert shown.header[:3] == ("method", "accuracy (%)", "training loss")
  assert list(table.labels) == ["tuned-1", "tuned-2"]
  header, *lines = (folder / "table.csv").read_text().splitlines()
  assert len(lines) == 2
  assert header.startswith("run,stage,method,lambda,divergence,seed,SUBSET_S")
  axes = {run.title: run.axes for run in read.read([str(folder)]).runs}
  assert axes == {
    f"tuned: {part}": {"stage": "tuned", "SUBSET_SEED": part} for part in (1, 2)
  }


def test_values_and_seeds_may_be_added_and_what_is_done_stays(
  changed, capsys, made
):
  flags = changed("seeds = [5]", "seeds = [5, 6]", "--dry_run")
  assert command.main(flags) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == "done  seed_5/tuned-1"
  assert re.match(
    r"  XLA_FLAGS=--xla\S+ GKD_CACHE_DIR=/.* GKD_DATA_DIR='' gkd train",
    lines[1],
  )
  assert lines[1].endswith(f"--gin.MODEL_DIR={made[1]}/seed_5/tuned-1")
  assert lines[4] == "to do  seed_6/tuned-1"
  assert lines[-1] == "2 of 4 jobs are done"
  assert not (made[1] / "seed_6").exists()


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    ("Two parts", "Another", "holds the grid 'Two parts', not 'Another'; give"),
    ("{TRAIN", "{TRAIN_STEPS = 3, TRAIN", "tuned-1 was done with other"),
    (
      "=false",
      "=true",
      "emitters=false; now XLA_FLAGS=--xla_cpu_use_fusion_emitters=true; give",
    ),
    (
      "{TRAIN",
      "{TRIAN_STEPS = 3, TRAIN",
      "(gkd train): --gin: nothing reads 'TRIA",
    ),
    ('t.gin"]', 't.gin", "tasks/gsm9k.gin"]', "did you mean tasks/gsm8k.gin"),
    ('"train"', '"sample"', "(gkd sample): --gin: nothing reads 'OUTPUT_DIR'"),
    ("{TRAIN", "{BEAM_SIZE = 3, TRAIN", "nothing reads 'BEAM_SIZE'"),
    ('"train"', '"cache make"', "TRAIN_CACHE has no effect: gkd cache make ma"),
    ('"train"', '"train"\nflags = ["--help"]', "['--help']: they print help"),
    ('"train"', '"train"\nflags = ["\\u0000"]', r"'\x00' is not UTF-8; give"),
    ("XLA_FLAGS", "GKD_CACHE_DIR", "GKD_CACHE_DIR, which `gkd grid` sets its"),
    ("2]", "-2]", "job seed_5/tuned--2 (gkd train): SUBSET_SEED is -2"),
  ],
)
def test_a_mistake_of_any_job_is_found_before_the_first_starts(
  old, new, message, changed, capsys, monkeypatch
):
  monkeypatch.setattr(runner, "run", lambda *args, **kwargs: pytest.fail("ran"))
  assert message in error_of(changed(old, new), capsys)


def test_a_gin_file_that_is_edited_while_the_grid_runs_is_noticed(
  changed, made, tmp_path, monkeypatch, capsys
):
  def run(jobs, resolve, *others, **more):
    assert "TRAIN_STEPS = 2" in resolve(jobs[0])
    (tmp_path / "short.gin").write_text(SHORT.replace("= 2", "= 3"))
    resolve(jobs[0])

  monkeypatch.setattr(runner, "run", run)
  error = error_of(changed("seeds = [5]", "seeds = [6]"), capsys)
  assert (
    "edited since the grid was started: TRAIN_STEPS = 2; now TRAIN" in error
  )


def test_a_folder_in_use_or_with_results_of_something_else_is_refused(
  made, tmp_path, capsys
):
  file, folder = made
  with locks.hold(folder / ".lock", "it"):
    assert "is in use by process" in error_of(arguments(file, folder), capsys)
  (tmp_path / "results.json").write_text("{}")
  message = "holds results.json, which would be replaced, and no grid"
  assert message in error_of(arguments(file, tmp_path), capsys)
  assert json.loads((tmp_path / "results.json").read_text()) == {}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.parent.name)
def test_grids_that_come_along_can_be_started(file, tmp_path):
  name = file.relative_to(configuration.config_folder())
  assert command.main(arguments(name, tmp_path / "out", "--dry_run")) == 0


def test_the_grid_of_the_docs_can_be_started(tmp_path, capsys):
  page = Path(__file__).parents[2] / "docs" / "grids.md"
  text = page.read_text("utf-8").split("```")[1]
  text = text.replace("seeds = [0, 1, 2]", "seeds = [0]")
  (tmp_path / "xsum.toml").write_text(text)
  flags = arguments(tmp_path / "xsum.toml", tmp_path / "out", "--dry_run")
  assert command.main(flags) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[-1] == "0 of 21 jobs are done"
  assert "to do  seed_0/distil-0.5-small-jsd" in lines
