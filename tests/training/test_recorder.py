"""Numbers of finished steps reach the file whatever ends the run."""

import json

import jax.numpy as jnp
import pytest

from gkd.metrics import Mean
from gkd.training.recorder import Recorder


def stats(loss):
  return {
    "loss": Mean.of(jnp.float32(loss)),
    "tokens": Mean.of(jnp.float32(12)),
    "finite": Mean.of(jnp.float32(1)),
  }


def lines(folder):
  text = (folder / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_the_mean_of_the_steps_since_the_last(tmp_path):
  seen = []
  with Recorder(
    str(tmp_path), listener=lambda *record: seen.append(record)
  ) as recorder:
    for done, loss in enumerate((1.0, 2.0, 6.0), start=1):
      with recorder.timer("update"):
        recorder.add(done, stats(loss))
      if done == 2:
        recorder.write(done, {"eval/sums/accuracy": 0.5})
    recorder.write(3)
    recorder.write(4)  # nothing happened
  first, second = lines(tmp_path)
  assert (first["step"], first["train/loss"]) == (2, 1.5)
  assert first["eval/sums/accuracy"] == 0.5
  assert (second["step"], second["train/loss"]) == (3, 6.0)
  assert second["time/update_seconds"] > 0
  assert {"time/tokens_per_second", "compile/count"} <= second.keys()
  assert not {"train/tokens", "train/finite"} & second.keys()
  assert [step for step, _ in seen] == [2, 3]


def interrupted(recorder, write):
  with recorder:
    recorder.add(7, stats(1.0))
    if write:
      recorder.write(7)
    raise KeyboardInterrupt


def test_an_error_writes_the_steps_so_far_and_closes_the_files(tmp_path):
  recorder = Recorder(str(tmp_path))
  with pytest.raises(KeyboardInterrupt):
    interrupted(recorder, write=False)
  (line,) = lines(tmp_path)
  assert (line["step"], line["train/loss"]) == (7, 1.0)
  with pytest.raises(ValueError, match="closed file"):
    recorder.writers.scalars(8, {"train/loss": 0.0})


def test_a_listener_that_raises_does_not_write_a_line_twice(tmp_path):
  def listener(step, values):
    raise KeyboardInterrupt

  recorder = Recorder(str(tmp_path), listener=listener)
  with pytest.raises(KeyboardInterrupt):
    interrupted(recorder, write=True)
  assert len(lines(tmp_path)) == 1
