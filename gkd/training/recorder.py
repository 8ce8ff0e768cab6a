"""One line of numbers for the steps since the last one, whatever happens.

A run that stops early, by an error or by the user, writes down the steps that
it did before it closes its files.

  with Recorder(model_dir, resume_step=None) as recorder:
    with recorder.timer("update"):
      …
    recorder.add(done, stats)
    recorder.write(done, {"eval/sums/accuracy": 0.5})
"""

from collections.abc import Mapping
from typing import Protocol

import jax

from gkd import metrics
from gkd.metrics import Mean
from gkd.training.telemetry import CompileCounter
from gkd.training.telemetry import PhaseTimer
from gkd.training.telemetry import peak_memory_bytes
from gkd.training.writers import Writers


class Listener(Protocol):
  """Sees every record that a run writes, as it is written."""

  def __call__(self, step: int, values: dict[str, float]) -> None: ...


class Recorder:
  """Gathers the means of steps, times and compiles, and writes them.

  Attributes:
    timer: of the phases; `time/checkpoint_seconds` is how long the loop waited,
      as a checkpoint is written in the background.
    writers: the files of the run.
  """

  def __init__(
    self,
    model_dir: str,
    *,
    resume_step: int | None = None,
    listener: Listener | None = None,
  ):
    """Opens the files; see `Writers`."""
    self.timer = PhaseTimer()
    self.writers = Writers(model_dir, resume_step=resume_step)
    self._compiles = CompileCounter()
    self._listener = listener
    self._pending: list[Mapping[str, Mean]] = []
    self._last = 0

  def __enter__(self) -> "Recorder":
    return self

  def __exit__(self, *exception) -> None:
    try:
      self.flush()
    finally:
      self._compiles.close()
      self.writers.close()

  def add(self, done: int, stats: Mapping[str, Mean]) -> None:
    """Keeps the means of the step that makes `done` finished steps."""
    self._pending.append(stats)
    self._last = done

  def flush(self) -> None:
    """Writes the steps since the last line, if any."""
    if self._pending:
      self.write(self._last)

  def write(self, done: int, values: Mapping[str, float] | None = None) -> None:
    """One line: the steps since the last line, and `values`; none if empty."""
    # Emptied first: a listener may raise, and `__exit__` flushes.
    pending, self._pending = self._pending, []
    line = (self._numbers(pending) if pending else {}) | dict(values or {})
    if not line:
      return
    self.writers.scalars(done, line)
    if self._listener is not None:
      self._listener(done, line)

  def _numbers(self, pending: list[Mapping[str, Mean]]) -> dict[str, float]:
    merged = metrics.merge(jax.device_get(pending))
    tokens = float(merged.pop("tokens").total)
    merged.pop("finite")
    values = {f"train/{k}": v for k, v in metrics.compute(merged).items()}
    times = self.timer.pop()
    values |= times
    busy = sum(
      times.get(f"time/{phase}_seconds", 0.0)
      for phase in ("data", "sample", "update")
    )
    values["time/tokens_per_second"] = tokens / busy if busy else float("nan")
    values["compile/count"] = float(self._compiles.count)
    values["memory/peak_bytes"] = float(peak_memory_bytes())
    return values
