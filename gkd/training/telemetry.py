"""Where the time went, how often XLA compiled, how much memory was used."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import logging
import sys
import time

import jax
from jax import monitoring
import numpy as np

from gkd import chips
from gkd import processes
from gkd import watchdog
from gkd.metrics import Mean

_LOG = logging.getLogger(__name__)
# Fired once for each program that XLA compiled or that came from the persistent
# cache, with the seconds it took (jax/_src/dispatch.py).
_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


_PHASES_OF_STEPS = ("data", "sample", "reward", "update")


class PhaseTimer:
  """Seconds spent in each named phase.

  JAX returns before a computation is done: time its launch and the wait for its
  results under one name.

  Attributes:
    seconds: {phase: seconds}; a run that goes on sets what it had.
    host_seconds: of steps since the last report, without waiting for devices.
  """

  def __init__(self, clock: Callable[[], float] = time.perf_counter):
    self._clock = clock
    self.seconds: dict[str, float] = {}
    self.host_seconds = 0.0

  @contextlib.contextmanager
  def __call__(
    self, phase: str, *, step: int | None = None, waits: bool = False
  ) -> Iterator[None]:
    """`with timer("sample"): …`; phases add up and may not nest.

    A profile shows them by name.

    Args:
      phase: its name.
      step: that begins with it, counted from 0.
      waits: for the devices, and so for the slowest process of all.
    """
    watchdog.of_process.at(phase, step)
    started = self._clock()
    try:
      with jax.profiler.TraceAnnotation(phase):
        yield
    finally:
      spent = self._clock() - started
      self.seconds[phase] = self.seconds.get(phase, 0.0) + spent
      if phase in _PHASES_OF_STEPS and not waits:
        self.host_seconds += spent

  @property
  def busy_seconds(self) -> float:
    """Of steps; evaluations and checkpoints are not counted."""
    return sum(self.seconds.get(phase, 0.0) for phase in _PHASES_OF_STEPS)

  @property
  def values(self) -> dict[str, float]:
    """{"time/<phase>_seconds": total}."""
    return {f"time/{name}_seconds": t for name, t in self.seconds.items()}


class CompileCounter:
  """Counts XLA compiles of this process while open; logs each for debugging.

  with CompileCounter() as compiles:
    …
    compiles.count
  """

  def __init__(self):
    self.count = 0

  def __enter__(self) -> "CompileCounter":
    monitoring.register_event_duration_secs_listener(self._listen)
    return self

  def __exit__(self, *exception) -> None:
    monitoring.unregister_event_duration_listener(self._listen)

  def _listen(self, event: str, seconds: float, **metadata) -> None:
    if event != _COMPILE_EVENT:
      return
    self.count += 1
    name = metadata.get("fun_name", "a program")
    _LOG.debug("compile %d: %s took %.2f s", self.count, name, seconds)


class Throughput:
  """Tokens and model FLOPs a second and chip, and hours of all chips.

  Args:
    devices: of the run, all of one kind.
    chip_hours: of its earlier starts, up to the checkpoint.
  """

  def __init__(self, devices: Sequence[jax.Device], chip_hours: float = 0.0):
    self._count = len(devices)
    self._chip = chips.of_kind(devices[0].device_kind)
    self._earlier, self._began = chip_hours, time.monotonic()
    # Of steps during which nothing compiled.
    self._tokens = self._flops = self._seconds = 0.0
    self._compiles = 0

  @property
  def chip_hours(self) -> float:
    """Devices times hours of training: compiling, evaluating, saving too."""
    here = self._count * (time.monotonic() - self._began) / 3600
    return self._earlier + here

  def add(
    self, stats: Mapping[str, Mean], seconds: float, compiles: int
  ) -> None:
    """A step that took so long is over; so many programs compiled so far."""
    if compiles == self._compiles:
      self._tokens += float(stats["tokens"].total)
      self._flops += float(stats["flops"].total)
      self._seconds += seconds
    self._compiles = compiles

  def rates(
    self, tokens: float, flops: float, seconds: float
  ) -> dict[str, float]:
    """Metrics of so much work in so many seconds; none of no time."""
    if not seconds:
      return {}
    each = seconds * self._count
    values = {
      "time/tokens_per_second_per_chip": tokens / each,
      "time/model_flops_per_second_per_chip": flops / each,
    }
    if self._chip is not None:
      share = flops / each / self._chip.flops
      values["time/model_flops_utilization"] = share
    return values

  def describe(self) -> str:
    """The line at the end of a run."""
    hours = f"{self.chip_hours:.4g} chip-hours"
    text = f"cost: {hours} of training with earlier starts, without loading"
    if rates := self.rates(self._tokens, self._flops, self._seconds):
      tokens, flops, *share = rates.values()
      text += f"; a chip: {tokens:,.0f} tokens/s, {flops / 1e12:.4g} TFLOP/s"
      text += "".join(f" ({x:.1%} of its bfloat16 peak)" for x in share)
    return text


def stragglers(host_seconds: float) -> dict[str, float]:
  """How far the slowest process is behind; nothing where there is only one.

  All wait for it at each step, so that a step takes as long everywhere; the
  time that a process takes before it waits tells them apart.
  """
  if processes.count() == 1:
    return {}
  texts = processes.exchange("host_seconds", str(host_seconds))
  seconds = np.array(texts, np.float64)
  return {
    "time/host_seconds_median": float(np.median(seconds)),
    "time/host_seconds_max": float(seconds.max()),
    "time/slowest_process": float(seconds.argmax()),
  }


def peak_memory_bytes() -> int:
  """Most memory held so far: per device where known, else of the process."""
  return peak_device_bytes() or peak_host_bytes()


def peak_device_bytes() -> int:
  """Most memory held on a device so far; 0 where devices do not say it.

  The largest of the local devices counts, as that is the one that runs out.
  """
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  return max(x.get("peak_bytes_in_use", 0) for x in stats)


def peak_host_bytes() -> int:
  """Most memory held by the process so far."""
  import resource  # not on Windows, where jax has no accelerator either

  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == "darwin" else peak * 1024  # KiB on Linux
