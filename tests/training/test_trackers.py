"""Trackers are told what a run writes; their own packages: tests/parity."""

import importlib.util
import json
import logging

import pytest

from gkd.training.recorder import Recorder
from gkd.training.trackers import tracking
from gkd.types import UserError
from tests.cli.command_lines import arguments
from tests.cli.command_lines import error_of


class FakeTracker:
  """A tracker that fails where it is to."""

  def __init__(self, fails=""):
    self.calls, self._fails = [], fails

  def _note(self, *call):
    self.calls.append(call)
    if call[0] == self._fails:
      raise ConnectionError("no\nnetwork")

  def start(self, name, config, run_id):
    self._note("start", name, config, run_id)
    return "abc"

  def scalars(self, step, values):
    self._note("scalars", step, values)

  def samples(self, step, rows):
    self._note("samples", step, rows)

  def finish(self, *, failed):
    self._note("finish", failed)


def write(tracker, folder) -> None:
  """A run of two reports and a dump."""
  with (
    tracking(tracker, folder, {"seed": 0}) as tracked,
    Recorder(str(folder), tracked=tracked) as recorder,
  ):
    for step in (1, 2):
      recorder.write(step, {"eval/sums/accuracy": step / 2}, report=True)
    recorder.samples(2, [{"text": "a"}])


def test_a_tracker_is_told_what_goes_to_the_folder(tmp_path):
  tracker = FakeTracker()
  write(tracker, tmp_path)
  assert tracker.calls == [
    ("start", tmp_path.name, {"seed": 0}, None),
    ("scalars", 1, {"eval/sums/accuracy": 0.5}),
    ("scalars", 2, {"eval/sums/accuracy": 1.0}),
    ("samples", 2, [{"text": "a"}]),
    ("finish", False),
  ]
  again = FakeTracker()
  with pytest.raises(KeyError), tracking(again, tmp_path, {}):
    raise KeyError
  assert again.calls == [("start", tmp_path.name, {}, "abc"), ("finish", True)]


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path, caplog):
  caplog.set_level(logging.WARNING, logger="gkd")
  tracker = FakeTracker(fails="scalars")
  write(tracker, tmp_path)
  assert [call[0] for call in tracker.calls] == ["start", "scalars"]
  assert "FakeTracker failed (no network); the run goes on" in caplog.text
  assert len(caplog.messages) == 1
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert json.loads(lines[1])["step"] == 2


def test_a_tracker_that_cannot_start_is_one_line(tmp_path):
  with pytest.raises(UserError, match=r"^TRACKER: FakeTracker cannot start \("):
    write(FakeTracker(fails="start"), tmp_path)
  assert not (tmp_path / "tracker.json").exists()


@pytest.mark.parametrize("name", ["WandB", "MLflow", "Aim"])
def test_a_package_that_is_missing_is_told_before_anything(
  name, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
  folder = tmp_path / "run"
  command = arguments("sft", TRACKER=f"@trackers.{name}()", MODEL_DIR=folder)
  line = error_of(["train", *command[1:]], capsys)
  package = name.lower()
  assert f"{package}, which is not installed; pip install {package}," in line
  assert not folder.exists()
