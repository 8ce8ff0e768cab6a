"""Lines of numbers that do not depend on where a run was interrupted.

Training means cover the steps since the last report and are written at reports
alone. What was gathered since then goes into each checkpoint, so that a resumed
run writes the same lines as a straight one. Values of an evaluation join the
line of their step if it is a report, and have a line of their own otherwise.

  with Recorder(model_dir) as recorder:
    with recorder.timer("update"):
      …
    recorder.add(stats)
    recorder.write(done, {"eval/sums/accuracy": 0.5}, report=True)
    recorder.writers.sync()
    store.save(done, state, recorder.metadata())
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import jax

from gkd import metrics
from gkd import processes
from gkd.metrics import Mean
from gkd.training.degeneration import Degeneration
from gkd.training.telemetry import CompileCounter
from gkd.training.telemetry import PhaseTimer
from gkd.training.telemetry import Throughput
from gkd.training.telemetry import peak_memory_bytes
from gkd.training.telemetry import stragglers
from gkd.training.trackers import Tracking
from gkd.training.writers import NoWriters
from gkd.training.writers import Writers


class Listener(Protocol):
  """Sees every record that a run writes, as it is written."""

  def __call__(self, step: int, values: dict[str, float]) -> None: ...


class Recorder:
  """Gathers the means of steps, times and compiles, and writes them.

  Args:
    model_dir: folder of the run.
    start: the step that was restored; 0 for a run that starts anew.
    metadata: what `metadata` gave for the checkpoint of this step.
    listener: sees every record.
    tracked: the run of a tracker, which is told of records and samples.
    mesh: the devices of the run; None for those of this process.

  Attributes:
    timer: of the phases; `time/checkpoint_seconds` is how long the loop waited,
      as a checkpoint is written in the background.
    throughput: of the devices.
    writers: the files of the run.
  """

  def __init__(
    self,
    model_dir: str,
    start: int = 0,
    metadata: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    tracked: Tracking | None = None,
    mesh: jax.sharding.Mesh | None = None,
  ):
    metadata = metadata or {}
    self.timer = PhaseTimer()
    devices = jax.local_devices() if mesh is None else list(mesh.devices.flat)
    self.throughput = Throughput(devices, metadata.get("chip_hours", 0.0))
    self._means: dict[str, Mean] = {}
    if unwritten := metadata.get("unwritten"):
      self.timer.seconds = dict(unwritten["seconds"])
      self._means = metrics.from_json(unwritten["means"])
    self._busy_seconds = self.timer.busy_seconds
    self.writers = NoWriters()
    if processes.is_writer():
      self.writers = Writers(
        model_dir,
        resume_step=start or None,
        partial=bool(self._means),
        pending_eval=metadata.get("pending_eval", False),
      )
    self._compiles = CompileCounter()
    self._degeneration = Degeneration(metadata.get("first_sampled_length"))
    self._listener = listener
    self._tracked = tracked or Tracking(None)

  def __enter__(self) -> "Recorder":
    self._compiles.__enter__()
    return self

  def __exit__(self, *exception) -> None:
    self._compiles.__exit__(*exception)
    self.writers.close()

  def metadata(self, *, pending_eval: bool = False) -> dict[str, Any]:
    """JSON for a checkpoint: what no line has yet, exact to the bit.

    `pending_eval`: the step is still to be evaluated, and so to have its line.
    """
    means = metrics.to_json(self._means)
    return {
      "unwritten": {"means": means, "seconds": dict(self.timer.seconds)},
      "pending_eval": pending_eval,
      "chip_hours": self.throughput.chip_hours,
      "first_sampled_length": self._degeneration.first_length,
    }

  def add(self, stats: Mapping[str, Mean]) -> None:
    """Gathers the means of one step, on the host."""
    self._means = metrics.merge([self._means, stats])
    before, self._busy_seconds = self._busy_seconds, self.timer.busy_seconds
    seconds = self._busy_seconds - before
    self.throughput.add(stats, seconds, self._compiles.count)

  def write(
    self,
    done: int,
    evaluated: Mapping[str, float],
    *,
    report: bool,
    end: bool = False,
  ) -> None:
    """The line of a step: training means at a report, values if there are any.

    Args:
      done: finished steps.
      evaluated: values of the evaluations after this step.
      report: whether what was gathered is written, and then forgotten.
      end: the run ends here. What was gathered is written too, but stays
        gathered: a run that is continued takes it out of this line and writes
        it at the next report.
    """
    line: dict[str, float] = {}
    if (report or end) and self._means:
      line = self._numbers(self._means)
      self._degeneration.observe(line)
      if report:
        self._means, self.timer.seconds = {}, {}
        self.timer.host_seconds = self._busy_seconds = 0.0
    self._line(done, line | dict(evaluated))

  def write_alone(self, done: int, stats: Mapping[str, Mean]) -> None:
    """A line of one step that is not gathered: the one that failed."""
    self._line(done, self._numbers(stats))

  def samples(self, done: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """A dump of the batch as trained."""
    self.writers.samples(done, rows)
    self._tracked.notify("samples", done, rows)

  def _line(self, done: int, line: dict[str, float]) -> None:
    if not line:
      return
    self.writers.scalars(done, line)
    self._tracked.notify("scalars", done, line)
    if self._listener is not None:
      self._listener(done, line)

  def _numbers(self, means: Mapping[str, Mean]) -> dict[str, float]:
    means, times = dict(means), self.timer.values
    tokens = float(means.pop("tokens").total)
    # An earlier version counted none.
    flops = float(means.pop("flops").total) if "flops" in means else 0.0
    means.pop("finite")
    values = {f"train/{k}": v for k, v in metrics.compute(means).items()}
    values |= times
    busy = self.timer.busy_seconds
    values["time/tokens_per_second"] = tokens / busy if busy else float("nan")
    values |= self.throughput.rates(tokens, flops, busy)
    values["time/chip_hours"] = self.throughput.chip_hours
    values["compile/count"] = float(self._compiles.count)
    values["memory/peak_bytes"] = float(peak_memory_bytes())
    return values | stragglers(self.timer.host_seconds)
