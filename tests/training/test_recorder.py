"""Numbers do not depend on where a run was interrupted."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from gkd.metrics import Mean
from gkd.training.recorder import Recorder
from tests.tiny import lines


def stats(loss):
  return {
    "loss": Mean.of(jnp.float32(loss)),
    "tokens": Mean.of(jnp.float32(12)),
    "flops": Mean.of(jnp.float32(1e9)),
    "finite": Mean.of(jnp.float32(1)),
  }


def test_a_report_is_the_mean_of_the_steps_since_the_last(tmp_path):
  seen = []
  with Recorder(
    str(tmp_path), listener=lambda *record: seen.append(record)
  ) as recorder:
    for done, loss in enumerate((1.0, 2.0, 6.0), start=1):
      with recorder.timer("update"):
        recorder.add(stats(loss))
      if done == 2:
        recorder.write(2, {"eval/sums/accuracy": 0.5}, report=True)
    recorder.write(3, {}, report=True)
    recorder.write(4, {}, report=True)  # nothing happened
  first, second = lines(tmp_path)
  assert (first["step"], first["train/loss"]) == (2, 1.5)
  assert first["eval/sums/accuracy"] == 0.5
  assert (second["step"], second["train/loss"]) == (3, 6.0)
  assert second["time/update_seconds"] > 0
  assert {"time/tokens_per_second", "compile/count"} <= second.keys()
  assert not {"train/tokens", "train/finite"} & second.keys()
  assert [step for step, _ in seen] == [2, 3]


def test_an_evaluation_between_two_reports_has_a_line_of_its_own(tmp_path):
  with Recorder(str(tmp_path)) as recorder:
    for done, loss in enumerate((1.0, 2.0, 6.0), start=1):
      recorder.add(stats(loss))
      values = {"eval/sums/accuracy": 0.5} if done == 2 else {}
      recorder.write(done, values, report=done == 3)
  between, report = lines(tmp_path)
  assert between == {"step": 2, "eval/sums/accuracy": 0.5}
  assert (report["step"], report["train/loss"]) == (3, 3.0)


# Sums that depend on their order and on every bit of what came before.
LOSSES = np.random.default_rng(0).lognormal(0, 8, 8).astype(np.float32)


def test_what_was_gathered_goes_on_exactly_from_text(tmp_path):
  with Recorder(str(tmp_path / "straight")) as straight:
    for loss in LOSSES:
      straight.add(stats(loss))
    straight.write(8, {}, report=True)
  kept = None
  for done, loss in enumerate(LOSSES):
    with Recorder(str(tmp_path / "often"), done, kept) as recorder:
      recorder.add(stats(loss))
      with recorder.timer("update"):
        pass
      before = recorder.timer.seconds["update"]
      kept = json.loads(json.dumps(recorder.metadata()))
      recorder.write(done + 1, {}, report=done == 7)
  (expected,), (actual,) = (
    lines(tmp_path / "straight"),
    lines(tmp_path / "often"),
  )
  assert actual["train/loss"] == expected["train/loss"]
  # In float64 from the sums of float32, as in a run that is not interrupted.
  total = np.float32(0)
  for loss in LOSSES:
    total += loss
  assert expected["train/loss"] == float(total) / 8
  assert list(actual)[:2] == list(expected)[:2]
  # The time of all of them, not of the last process.
  assert actual["time/update_seconds"] == before


def test_the_line_of_an_end_between_two_reports_goes_when_the_run_goes_on(
  tmp_path,
):
  def run(steps, **resumed):
    with Recorder(str(tmp_path), **resumed) as recorder:
      for done in steps:
        recorder.add(stats(done))
        if done == 5:
          values = {"eval/sums/accuracy": 0.5}
          recorder.write(5, values, report=False, end=True)
          return recorder.metadata()
        recorder.write(done, {}, report=done % 4 == 0)
    return None

  kept = run(range(1, 6))
  found = [(x["step"], x.get("train/loss")) for x in lines(tmp_path)]
  assert found == [(4, 2.5), (5, 5.0)]
  run((6, 7, 8), start=5, metadata=kept)
  found = [(x["step"], x.get("train/loss")) for x in lines(tmp_path)]
  assert found == [(4, 2.5), (5, None), (8, 6.5)]


def test_a_step_that_failed_has_a_line_without_the_good_ones(tmp_path):
  with Recorder(str(tmp_path)) as recorder:
    recorder.add(stats(1.0))
    recorder.write(1, {}, report=False, end=True)
    recorder.write_alone(2, stats(np.nan))
  good, bad = lines(tmp_path)
  assert (good["step"], good["train/loss"]) == (1, 1.0)
  assert (bad["step"], bad["train/loss"]) == (2, None)


def test_an_error_closes_the_files(tmp_path):
  recorder = Recorder(str(tmp_path))
  with pytest.raises(KeyboardInterrupt), recorder:
    raise KeyboardInterrupt
  with pytest.raises(ValueError, match="closed file"):
    recorder.writers.scalars(8, {"train/loss": 0.0})
