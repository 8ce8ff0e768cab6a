"""Warnings about samples that degenerate."""

import json

import pytest

from gkd.metrics import Mean
from gkd.training.degeneration import Degeneration
from gkd.training.recorder import Recorder
from tests.training import test_recorder as cases

SOUND = {
  "train/sampled_length": 10.0,
  "train/truncation_rate": 0.1,
  "train/repetition_rate": 0.1,
}


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("truncation_rate", 1.0, "100% of the student's samples were cut"),
    ("repetition_rate", 0.8, "80% of the student's tokens repeat"),
    ("sampled_length", 20.0, "have grown 2.0 times, from 10 to 20 tokens"),
  ],
)
def test_each_kind_is_said_once_and_sound_samples_are_not(
  caplog, name, value, message
):
  watch = Degeneration()
  watch.observe({"train/loss": 1.0})  # fixed data alone
  watch.observe(SOUND)
  horizon = {"train/rollout_horizon": 8.0, f"train/{name}": value}
  watch.observe(SOUND | horizon)
  assert not caplog.messages
  for _ in range(2):
    watch.observe(SOUND | {f"train/{name}": value})
  (said,) = caplog.messages
  assert message in said
  assert "LEARNING_RATE" in said


def test_growth_is_counted_from_the_first_report_over_restarts(
  tmp_path, caplog
):
  kept = None
  for done, length in enumerate((10.0, 14.0, 16.0), start=1):
    assert not caplog.messages
    with Recorder(str(tmp_path), done - 1, kept) as recorder:
      sound = {n.removeprefix("train/"): Mean.of(x) for n, x in SOUND.items()}
      lengths = {"sampled_length": Mean.of(length)}
      recorder.add(cases.stats(1.0) | sound | lengths)
      recorder.write(done, {}, report=True)
      kept = json.loads(json.dumps(recorder.metadata()))
  (said,) = caplog.messages
  assert "have grown 1.6 times, from 10 to 16 tokens" in said
