"""A profile of some steps, for xprof or TensorBoard's profile plugin.

Each step is annotated with its number, and its phases with their names, see
`telemetry.PhaseTimer`. The process that writes profiles its own devices.
"""

import contextlib
import logging
from pathlib import Path

import jax

from gkd import processes

log = logging.getLogger("gkd")


class Profiler:
  """Writes a trace of the steps of a range, as the loop comes to them.

  with Profiler(range(10, 16), folder, start=0) as profiler:
    for done in …:
      profiler.begin(done)
      …
      if profiler.waits(done):
        …                        # until the step is over
        profiler.end(done)

  Args:
    steps: by their numbers in metrics.jsonl, counted from 1; may be empty.
    folder: of TensorBoard; the trace goes to plugins/profile/ in it.
    start: finished steps; those up to it are not run again.
  """

  def __init__(self, steps: range, folder: Path, start: int):
    self._steps = range(max(steps.start, start + 1), steps.stop)
    self._folder = str(folder)
    self._profile, self._step = contextlib.ExitStack(), contextlib.ExitStack()
    if skipped := range(steps.start, min(steps.stop, start + 1)):
      left = self._steps and f"{self._steps[0]} to {self._steps[-1]} alone"
      log.warning(
        "--profile: steps %d to %d are done since an earlier start; profiled:"
        " %s",
        *(skipped[0], skipped[-1], left or "none"),
      )

  def __enter__(self) -> "Profiler":
    return self

  def __exit__(self, *exception) -> None:
    self._step.close()
    self._profile.close()

  def begin(self, step: int) -> None:
    """A step begins."""
    if step not in self._steps or not processes.is_writer():
      return
    if step == self._steps.start:
      self._profile.enter_context(_tracing(self._folder, self._steps))
    self._step.close()
    annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
    self._step.enter_context(annotation)

  def waits(self, step: int) -> bool:
    """Whether a step is waited for, so that the trace has whole steps."""
    return bool(self._steps) and step in (
      self._steps.start - 1,
      self._steps[-1],
    )

  def end(self, step: int) -> None:
    """A step is over."""
    if self._steps and step == self._steps[-1]:
      self.__exit__()


@contextlib.contextmanager
def _tracing(folder: str, steps: range):
  """Profiles while it is open."""
  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0  # each call of Python: slow, and unreadable
  jax.profiler.start_trace(folder, profiler_options=options)
  try:
    yield
  finally:
    jax.profiler.stop_trace()
    log.info(
      "profile from step %d to %d: xprof --logdir=%s",
      *(steps.start, steps[-1], folder),
    )
