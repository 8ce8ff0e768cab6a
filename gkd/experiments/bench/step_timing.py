"""What a run costs: start-up, parts of a step, whole steps, and what surrounds.

Each round times all parts of a step of the same run side by side, so that their
ratios hold on a machine whose speed drifts. Wall time and process CPU time are
both given: on a shared machine only the second can be compared between rounds.
The first round compiles and is counted as start-up.

  run = RandomRun(size="tiny").build(folder)
  print(bench_table.describe(measure(run)))
"""

from collections.abc import Callable
from collections.abc import Sequence
import numbers
import os
from pathlib import Path
import platform
import resource
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from gkd import structured_settings
from gkd.errors import UserError
from gkd.errors import check_number
from gkd.experiments.bench import utilization
from gkd.experiments.bench.compile_times import CompileTimes
from gkd.experiments.bench.workload import Workload
from gkd.models import registry
from gkd.training.profiling import Profiler
from gkd.training.run import Run

STEPS = ("on_policy_step", "fixed_data_step")
PHASES = (
  *("input_pipeline", "prefill", "sample", "score", "update", *STEPS),
  *("evaluation", "checkpoint_save", "checkpoint_restore"),
)
# Of what takes long: evaluation, checkpoints, imports.
_FEW_ROUNDS = 3
_PROFILED_STEPS = 3
Clock = np.ndarray  # [wall, process CPU] seconds


def measure(
  run: Run,
  rounds: int = 20,
  phases: Sequence[str] = (),
  *,
  built: Clock = (0.0, 0.0),
  profile: str = "",
) -> dict[str, Any]:
  """Times `rounds` steps of a run, which writes into its own folder alone.

  Args:
    run: its λ is ignored, both ends are timed.
    rounds: number of counted rounds, at least 1; of evaluation, checkpoints and
      imports 3 at most.
    phases: of `PHASES`; none for all that the run has.
    built: in which the run was made.
    profile: a folder for a trace of three on-policy steps; "" for none.

  Returns:
    JSON: "work", what has to be equal for a comparison; "settings" of the run;
    "seconds" {phase: {"wall": {min, median, max}, "cpu": …}}; "ratio" of the
    on-policy to the fixed-data step, paired by round; "start_up", of which
    "first_calls" has the programs that compiled; "tokens_per_second" of
    targets, by median wall time; and what `utilization.of` returns.
  """
  phases = _chosen(run, rounds, phases)
  work, created = timed(lambda: Workload(run))
  first = {}
  clocks, tokens = _time(work, rounds, phases, first)
  if profile:
    _profile(work, profile)
  seconds = {name: spread(values) for name, values in clocks.items()}
  fixed, trained, decoded = np.mean(tokens, axis=0, dtype=float).tolist()
  result = {
    "work": work_of(run),
    "settings": structured_settings.to_json(run),
    "hardware": _hardware(),
    "rounds": rounds,
    "seconds": seconds,
    "start_up": {
      "import": spread([_import() for _ in range(min(rounds, _FEW_ROUNDS))]),
      "build": spread([np.add(built, created)]),
      "first_calls": first,
    },
    "tokens_per_row": trained / run.loader.batch_size,
    "tokens_per_second": {
      name: (fixed if name == "fixed_data_step" else trained)
      / seconds[name]["wall"]["median"]
      for name in ("sample", "score", "update", *STEPS)
      if name in phases
    },
  }
  if seconds.keys() >= set(STEPS):
    result["ratio"] = spread(np.divide(*(clocks[name] for name in STEPS)))
  return result | utilization.of(work, seconds, decoded)


def timed(function: Callable[[], Any]) -> tuple[Any, Clock]:
  """The result, when it is ready, and the seconds until then."""
  start = np.array([time.perf_counter(), time.process_time()])
  result = jax.block_until_ready(function())
  return result, [time.perf_counter(), time.process_time()] - start


def spread(values: Sequence[Clock]) -> dict[str, dict[str, float]]:
  """{"wall": {"min", "median", "max"}, "cpu": …} of clocks."""
  functions = {"min": np.min, "median": np.median, "max": np.max}
  return {
    kind: {name: float(f(column)) for name, f in functions.items()}
    for kind, column in zip(("wall", "cpu"), np.transpose(values), strict=True)
  }


def work_of(run: Run) -> dict[str, Any]:
  """What two results must have in common to be compared."""
  models = {}
  for role, model in run.roles.items():
    layout = registry.layout_of(model.config)
    in_words = layout.in_words if layout else registry.family_of
    models[role] = in_words(model.config)
  size, lengths = run.loader.batch_size, run.loader.lengths
  return {"models": models, "batch_size": size, "lengths": lengths}


def _chosen(run: Run, rounds: int, phases: Sequence[str]) -> Sequence[str]:
  """The phases that are timed."""
  check_number(
    "--rounds", rounds, lambda n: n >= 1, "at least 1", numbers.Integral
  )
  if run.rollout is not None and run.rollout.staleness:
    raise UserError(
      f"ROLLOUT_STALENESS is {run.rollout.staleness}, but the bench draws no"
      " text early; leave it out"
    )
  missing = {}
  if run.rollout is None and not run.train_step.frozen:
    of_sampling = ("prefill", "sample", "on_policy_step")
    missing = dict.fromkeys(of_sampling, "this run distils nothing")
  if not run.evaluations:
    missing["evaluation"] = "this run has none"
  for name in phases:
    if name not in PHASES or name in missing:
      reason = missing.get(name, "there is no such phase")
      expected = ", ".join(x for x in PHASES if x not in missing)
      raise UserError(f"--phases has {name!r} but {reason}; give {expected}")
  return [x for x in PHASES if x in (phases or PHASES) and x not in missing]


def _time(
  work: Workload, rounds: int, phases: Sequence[str], first: dict[str, Any]
) -> tuple[dict[str, list[Clock]], list[tuple[float, float, float]]]:
  """Clocks of each phase, and of each round what `_round` returns.

  Args:
    first: gets the seconds of first calls, and the programs compiled in them.
  """
  clocks = {name: [] for name in phases}

  def clock(phase: str, function: Callable[[], Any]) -> Any:
    if phase not in phases:
      return None
    if phase in first:
      result, seconds = timed(function)
      clocks[phase].append(seconds)
      return result
    with CompileTimes() as compiles:
      result, seconds = timed(function)
    first[phase] = {**spread([seconds]), "programs": compiles.programs}
    return result

  tokens = [_round(work, step, clock) for step in range(rounds + 1)]
  for _ in range(1 + min(rounds, _FEW_ROUNDS)):
    clock("evaluation", work.evaluate)
    clock("checkpoint_save", work.save)
    clock("checkpoint_restore", work.restore)
  return clocks, tokens[1:]


def _round(
  work: Workload, step: int, clock: Callable[[str, Callable[[], Any]], Any]
) -> tuple[float, float, float]:
  """Tokens of a batch as read and as trained on, and its decoding steps.

  Args:
    clock: called with each phase and what it does; returns None where it is not
      timed, else the result.
  """
  batch = clock("input_pipeline", lambda: work.read(step)) or work.read(step)
  batch = jax.block_until_ready(work.place(batch))
  clock("prefill", lambda: work.prefill(batch))
  rolled = clock("sample", lambda: work.sample(step, batch))
  rolled = rolled or work.fixed(step, batch)
  clock("score", lambda: work.score(rolled.batch))
  clock("update", lambda: work.update(rolled.batch))
  for phase, write in zip(STEPS, (work.sample, work.fixed), strict=True):
    clock(phase, lambda write=write: _whole_step(work, write, step))
  lengths = np.sum(rolled.batch.weights, axis=1)
  return np.sum(batch.weights), lengths.sum(), lengths.max() - 1


def _whole_step(work: Workload, write: Callable[..., Any], step: int) -> Any:
  """From reading to the update, waiting for nothing between."""
  return work.update(write(step, work.place(work.read(step))).batch)


def _profile(work: Workload, folder: str) -> None:
  """A trace of whole steps."""
  steps = range(1, 1 + _PROFILED_STEPS)
  with Profiler(steps, Path(folder), start=0) as profiler:
    for step in steps:
      profiler.begin(step)
      jax.block_until_ready(_whole_step(work, work.sample, step))


def _import() -> Clock:
  """A new process that imports what training does."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  start = time.perf_counter()
  command = [sys.executable, "-c", "import gkd.cli.train_command"]
  subprocess.run(command, check=True)
  wall = time.perf_counter() - start
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  return np.array([wall, sum(after[:2]) - sum(before[:2])])  # user and system


def _hardware() -> str:
  return (
    f"{jax.devices()[0].device_kind} × {jax.device_count()},"
    f" {platform.machine()}, {len(os.sched_getaffinity(0))} processors,"
    f" jax {jax.__version__}"
  )
