"""What a training step costs: sampling, score + update, and the whole.

Each round times one on-policy step and one fixed-data step of the same run side
by side, so that their ratio holds on a machine whose speed drifts. Wall time
and process CPU time are both given: on a shared machine only the second can be
compared between rounds. The first round compiles and is not counted.
"""

from collections.abc import Callable
import dataclasses
import platform
import statistics
import time
from typing import Any

import jax
import numpy as np

from gkd import partitioning
from gkd.losses.objective import Distillation
from gkd.training import state as states
from gkd.training.rollout import Constant
from gkd.training.rollout import Rollout
from gkd.training.rollout import roll_out
from gkd.training.run import Run
from gkd.training.state import TrainState
from gkd.training.step import update_step
from gkd.training.telemetry import peak_memory_bytes
from gkd.types import Model
from gkd.types import UserError

# In each result, so that `gkd bench` knows one that it may replace.
MARK = b'"on_policy_step"'
PHASES = ("sample", "update", "on_policy_step", "fixed_data_step")


def measure(run: Run, rounds: int = 20) -> dict[str, Any]:
  """Times `rounds` steps of a distillation run; nothing is written.

  Args:
    run: a run with a teacher; its λ is ignored, both ends are timed.
    rounds: number of counted rounds, at least 1.

  Returns:
    {"seconds": {phase: {"wall": {min, median, max}, "cpu": …}}, "ratio": …,
    "sampled_length": mean, "hardware": …}; `ratio` is the on-policy step over
    the fixed-data step, paired by round.
  """
  if not isinstance(run.objective, Distillation) or "teacher" not in (
    run.frozen_roles
  ):
    raise UserError(
      "the bench compares an on-policy with a fixed-data distillation step and"
      " needs a frozen teacher; give a distillation run"
    )
  if rounds < 1:
    raise UserError(f"--rounds is {rounds}; give at least 1")
  state = states.initial_state(
    run.student.lm, run.initial_params(), run.optimizer, run.mesh
  )
  teacher = partitioning.place_model(run.teacher, run.mesh)
  on_policy = dataclasses.replace(
    run.rollout or Rollout(student_fraction=Constant(1.0)),
    student_fraction=Constant(1.0),
  )
  lengths, clocks = [], []
  for step in range(rounds + 1):
    state, length, clock = _round(run, on_policy, state, teacher, step)
    lengths.append(length)
    clocks.append(clock)
  # [phases, rounds, 2]; the first round compiles.
  times = dict(zip(PHASES, np.array(clocks[1:]).swapaxes(0, 1), strict=True))
  ratio = times["on_policy_step"] / times["fixed_data_step"]
  return {
    "seconds": {name: _summary(values) for name, values in times.items()},
    "ratio": _summary(ratio),
    "sampled_length": statistics.fmean(lengths[1:]),
    "batch_size": run.loader.batch_size,
    "rounds": rounds,
    "peak_memory_bytes": peak_memory_bytes(),
    "hardware": f"{jax.devices()[0].device_kind} × {jax.device_count()},"
    f" {platform.machine()}, jax {jax.__version__}",
  }


def describe(result: dict[str, Any]) -> str:
  """The measurement as a small table."""
  lines = [f"{'':18}{'wall ms':>10}{'CPU ms':>10}   (medians)"]
  rows = [(name, 1e3, times) for name, times in result["seconds"].items()]
  for name, scale, times in [*rows, ("on-policy / fixed", 1, result["ratio"])]:
    wall, cpu = (scale * times[kind]["median"] for kind in ("wall", "cpu"))
    lines.append(f"{name.replace('_', ' '):18}{wall:10.2f}{cpu:10.2f}")
  lines.append(f"mean sampled length {result['sampled_length']:.1f} tokens")
  return "\n".join(lines)


def _round(
  run: Run,
  on_policy: Rollout,
  state: TrainState,
  teacher: Model,
  step: int,
) -> tuple[TrainState, float, list[np.ndarray]]:
  """Next state, mean sampled length, and the clocks of `PHASES`."""
  sharding = partitioning.batch_sharding(run.mesh)
  batch = jax.device_put(run.loader.batch(step), sharding)

  def sample():
    return roll_out(
      batch,
      step=step,
      seed=run.seed,
      plan=on_policy,
      student=dataclasses.replace(run.student, params=state.params),
      teacher=teacher,
      vocabulary=run.loader.vocabulary,
    )

  def update(state, batch):
    frozen = {"teacher": teacher.params}
    seed = np.int32(run.seed)
    return update_step(run.train_step, state, frozen, batch, seed)

  (sampled, means, *_), sampling = _timed(sample)
  (state, _), updating = _timed(lambda: update(state, sampled))
  (state, _), fixed = _timed(lambda: update(state, batch))
  clocks = [sampling, updating, sampling + updating, fixed]
  return state, means["sampled_length"].compute(), clocks


def _timed(function: Callable[[], Any]) -> tuple[Any, np.ndarray]:
  """The result and [wall, process CPU] seconds until it is ready."""
  start = np.array([time.perf_counter(), time.process_time()])
  result = jax.block_until_ready(function())
  return result, [time.perf_counter(), time.process_time()] - start


def _summary(values: np.ndarray) -> dict[str, dict[str, float]]:
  """{"wall": {"min", "median", "max"}, "cpu": …} of [rounds, 2] values."""
  functions = {"min": np.min, "median": np.median, "max": np.max}
  return {
    kind: {name: float(f(column)) for name, f in functions.items()}
    for kind, column in zip(("wall", "cpu"), values.T, strict=True)
  }
