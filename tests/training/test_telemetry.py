"""Time split, number of compiles, memory."""

import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.metrics import Mean
from gkd.training import telemetry


def test_phases_add_up_and_keep_the_time_of_one_that_fails():
  ticks = iter([0.0, 1.0, 10.0, 12.5, 20.0, 20.5])
  timer = telemetry.PhaseTimer(clock=lambda: next(ticks))
  with timer("sample"):
    pass
  with timer("update"):
    pass
  with pytest.raises(RuntimeError), timer("sample"):
    raise RuntimeError
  assert timer.values == {
    "time/sample_seconds": 1.5,
    "time/update_seconds": 2.5,
  }


def test_the_host_is_timed_in_steps_and_while_it_does_not_wait():
  times = iter(range(100))
  timer = telemetry.PhaseTimer(lambda: float(next(times)))
  for phase, waits in (("data", False), ("update", True), ("evaluate", False)):
    with timer(phase, waits=waits):
      pass
  assert timer.host_seconds == 1.0
  assert timer.busy_seconds == 2.0


def test_each_compile_counts_once_and_is_logged(caplog):
  double = jax.jit(lambda x: 2 * x)
  inputs = [np.ones(n, np.float32) for n in (3, 3, 4, 5)]
  with (
    caplog.at_level(logging.DEBUG, logger="gkd.training.telemetry"),
    telemetry.CompileCounter() as compiles,
  ):
    double(inputs[0])
    double(inputs[1])  # same shape: no compile
    assert compiles.count == 1
    double(inputs[2])
    assert compiles.count == 2
  double(inputs[3])  # after closing: not counted
  assert compiles.count == 2
  assert [record.message.split(":")[0] for record in caplog.records] == [
    "compile 1",
    "compile 2",
  ]


def test_rates_leave_out_steps_that_compiled_and_an_unknown_peak(monkeypatch):
  monkeypatch.setattr(telemetry.time, "monotonic", lambda: 0.0)
  work = {
    "tokens": Mean(np.float32(800), 1),
    "flops": Mean(np.float32(4e12), 1),
  }
  for kind, share in (
    ("TPU v5 lite", " (0.5% of its bfloat16 peak)"),
    ("", ""),
  ):
    device = types.SimpleNamespace(device_kind=kind)
    throughput = telemetry.Throughput([device] * 4, chip_hours=1.5)
    for seconds, compiles in ((50.0, 2), (1.0, 2), (1.0, 2)):
      throughput.add(work, seconds, compiles)
    assert throughput.describe() == (
      "cost: 1.5 chip-hours of training with earlier starts, without loading;"
      f" a chip: 200 tokens/s, 1 TFLOP/s{share}"
    )


def test_peak_memory_is_at_least_what_was_allocated():
  block = jnp.ones((1 << 22,), jnp.float32).block_until_ready()
  assert telemetry.peak_memory_bytes() >= block.nbytes
