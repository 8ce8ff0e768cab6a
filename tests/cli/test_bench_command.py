"""`gkd bench` times a named size, and compares with what it wrote before."""

import json
import re

import numpy as np
import pytest

from gkd.cli import main as command
from gkd.experiments.bench import ceilings
from gkd.experiments.bench import step_timing
from tests.cli.command_lines import arguments
from tests.cli.command_lines import error_of
from tests.cli.command_lines import write_caches

SIZES = ("--size=tiny", "--batch_size=4", "--input_length=4")
BENCH = ("bench", *SIZES, "--target_length=4", "--rounds=1")


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  return write_caches(tmp_path_factory.mktemp("caches"))


@pytest.fixture(scope="module")
def result_file(tmp_path_factory):
  """Of a run in bfloat16."""
  file = tmp_path_factory.mktemp("bench") / "bench.json"
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(ceilings._SIZES, "cpu", (128, 1 << 20))
    patch.setattr(step_timing, "_import", lambda: np.ones(2))
    flags = ("--dtype=bfloat16", "--phases", "update", f"--output={file}")
    assert command.main([*BENCH, *flags]) == 0
    # Both are read before they are written.
    assert command.main([*BENCH, *flags, f"--compare={file}"]) == 0
  return file


def test_a_named_size_needs_no_file(result_file):
  result = json.loads(result_file.read_text())
  assert result["work"]["batch_size"] == 4
  assert result["work"]["lengths"] == {"inputs": 4, "targets": 4}
  assert "width 64" in result["work"]["models"]["teacher"]
  assert result["ceilings"]["dtype"] == "bfloat16"
  assert list(result["seconds"]) == ["update"]
  assert result["utilization"]["update"] > 0
  [start] = result["starts"]
  assert start["command"].startswith("gkd ")


@pytest.fixture
def nothing_timed(monkeypatch):
  def measure(*arguments, **options):
    raise AssertionError("timed before the flags were checked")

  monkeypatch.setattr(step_timing, "measure", measure)


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--batch_size=8"], "has batch_size 4, this run has 8; give a result"),
    (["--target_length=5"], "has lengths .*5}; give a result of the same work"),
    (["--size=scratch_mini"], "has models .*; give a result of the same work"),
  ],
)
def test_other_work_is_not_compared(
  flags, message, result_file, capsys, nothing_timed
):
  line = error_of([*BENCH, *flags, f"--compare={result_file}"], capsys)
  assert re.search(message, line), line


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--compare=no.json"], "no.json cannot be read .*; give a result of gkd"),
    (["--size=huge"], "--size is 'huge'; .*gkd list models"),
    (
      ["--gin_file=test/sft.gin"],
      "--size and --gin_file are both given; leave",
    ),
    (["--gin.BATCH_SIZE=4"], "--size and --gin.BATCH_SIZE=4 are both given"),
    (["--size="], "--size is ''; give tiny or"),
  ],
)
def test_wrong_flags_are_one_line(flags, message, capsys, nothing_timed):
  assert re.search(message, error_of([*BENCH, *flags], capsys))


def test_sizes_have_no_effect_on_a_configuration(capsys, nothing_timed):
  bench = arguments("bench", "--batch_size=2", file="test/sft.gin")
  line = error_of(bench, capsys)
  assert "--batch_size has no effect without --size; leave it out" in line


def test_results_of_before_are_refused(tmp_path, capsys, nothing_timed):
  file = tmp_path / "bench.json"
  file.write_text('{"seconds": {"sample": {}}}')
  line = error_of([*BENCH, f"--compare={file}"], capsys)
  assert "give a result of gkd bench" in line
  line = error_of([*BENCH, f"--output={file}"], capsys)
  assert "not what this command can replace" in line


def test_a_configuration_is_timed_in_a_folder_of_its_own(
  caches, tmp_path, monkeypatch
):
  def measure(run, rounds, phases, **options):
    assert run.train_steps == 20
    assert run.folder != tmp_path
    raise KeyboardInterrupt

  monkeypatch.setattr(step_timing, "measure", measure)
  macros = {**caches, "MODEL_DIR": tmp_path}
  output = f"--output={tmp_path}/bench.json"
  bench = arguments("bench", output, file="test/sft.gin", **macros)
  assert command.main(bench) == 130
  assert list(tmp_path.iterdir()) == []
