"""Warnings about samples that degenerate."""

import pytest

from gkd.training.degeneration import Degeneration

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
