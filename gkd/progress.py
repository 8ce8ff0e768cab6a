"""A live progress line: rate, time left and a few numbers of the last report.

On a terminal it is tqdm's bar. Elsewhere (a log file, CI) a bar would fill the
log with control characters, so a plain line is printed every so often instead.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import logging
import sys
import time
from typing import Any
from typing import TextIO

from gkd import processes


class Progress:
  """Counts steps up to `total` and shows how far and how fast.

  with Progress(1000, initial=200, description="sft") as progress:
    progress.update(1, {"loss": 0.41})
  """

  def __init__(
    self,
    total: int | None,
    initial: int = 0,
    description: str = "",
    *,
    unit: str = "step",
    compiles: bool = False,
    delay: float = 0.0,
    seconds: float = 10.0,
    stream: TextIO | None = None,
  ):
    """Starts the clock.

    Args:
      total: step at which the bar is full; None where nobody knows it.
      initial: step to start from, when a run goes on.
      description: what is being done, in front of the bar.
      unit: what is counted, in the singular.
      compiles: the first step does: it is announced, and left out of the rate.
      delay: show nothing before so many seconds have passed; such a bar also
        goes away when it is done.
      seconds: time between two plain lines when `stream` is no terminal.
      stream: where to print, standard error by default.
    """
    self._total = total
    self._done = initial
    self._description = description
    self._unit = unit
    self._seconds = seconds
    self._stream = stream if stream is not None else sys.stderr
    self._numbers: dict[str, str] = {}
    self._printed = time.monotonic()
    self._quiet_until = self._printed + delay
    self._printed_at = initial
    # Where the line before the last one stood.
    self._earlier = (self._printed, initial)
    self._compiles = compiles
    self._bar = None
    self._closing = contextlib.ExitStack()
    if self._stream.isatty() and processes.is_writer():
      from tqdm import tqdm  # only where a bar can be shown
      from tqdm.contrib.logging import logging_redirect_tqdm

      # The bar is cleared before a line of a log.
      redirected = logging_redirect_tqdm(_writing_to(self._stream))
      self._closing.enter_context(redirected)
      self._bar = tqdm(
        total=total,
        initial=initial,
        desc=description,
        file=self._stream,
        dynamic_ncols=True,
        smoothing=0.1,
        unit=f" {unit}s",
        delay=delay,
        leave=not delay,
      )
    if compiles and initial != total:
      self.print(f"{description}: compiling the first step".removeprefix(": "))

  def update(
    self, steps: int = 1, numbers: Mapping[str, float] | None = None
  ) -> None:
    """Advances; `numbers` replace those shown behind the bar."""
    self._done += steps
    if numbers is not None:
      self._numbers = {name: short(value) for name, value in numbers.items()}
    if self._bar is not None:
      if numbers is not None:
        self._bar.set_postfix(self._numbers, refresh=False)
      if self._compiles:
        self._compiles = False
        self._bar.reset(self._total)
        self._bar.initial = self._bar.n = self._bar.last_print_n = self._done
        self._bar.refresh()
      else:
        self._bar.update(steps)
      return
    now = time.monotonic()
    if now < self._quiet_until:
      return
    full = self._total is not None and self._done >= self._total
    if self._compiles:
      self._compiles = False
      self._printed, self._printed_at = self._earlier = (now, self._done)
      self.print(self._line(now))
    elif now - self._printed >= self._seconds or full:
      self.print(self._line(now))
      self._earlier = (self._printed, self._printed_at)
      self._printed, self._printed_at = now, self._done

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """For what is no step: its time does not count in the rate."""
    start = time.monotonic()
    yield
    paused = time.monotonic() - start
    self._printed += paused
    self._earlier = (self._earlier[0] + paused, self._earlier[1])
    if self._bar is not None:
      self._bar.start_t += paused
      self._bar.last_print_t += paused

  def print(self, text: str) -> None:
    """Prints a line without tearing the bar; the writer alone does."""
    if not processes.is_writer():
      return
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    else:
      print(text, file=self._stream, flush=True)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()
    self._closing.close()

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *exception: Any) -> None:
    self.close()

  def _line(self, now: float) -> str:
    # Since the last line, so that what was slow before does not count.
    since, at = self._printed, self._printed_at
    if now - since < self._seconds:  # the end, too soon after a line to tell
      since, at = self._earlier
    rate = (self._done - at) / max(now - since, 1e-9)
    known = self._total is not None
    done = f"{self._done}/{self._total}" if known else f"{self._done}"
    parts = [f"{self._description}: {done}".removeprefix(": ")]
    if rate:  # none yet right after the compile
      parts.append(_speed(rate, self._unit))
    if rate and known:
      parts.append(f"{clock((self._total - self._done) / rate)} left")
    parts.extend(f"{name} {value}" for name, value in self._numbers.items())
    return " · ".join(parts)


def _writing_to(stream: TextIO) -> list[logging.Logger]:
  """The loggers to redirect: lines of others would come twice."""
  return [
    logger
    for logger in (logging.root, logging.getLogger("gkd"))
    if any(vars(x).get("stream") is stream for x in logger.handlers)
  ]


def short(value: float) -> str:
  """Four digits, or all of a whole number with more."""
  return f"{value:,.0f}" if abs(value) >= 1000 else f"{float(value):.4g}"


def _speed(rate: float, unit: str) -> str:
  """Steps a second, or seconds a step where that reads better."""
  if 0 < rate < 1:
    return f"{1 / rate:.3g} s/{unit}"
  return f"{rate:,.0f} {unit}s/s" if rate >= 100 else f"{rate:.3g} {unit}s/s"


def clock(seconds: float) -> str:
  """Seconds as 4:05 or 1:04:05."""
  minutes, second = divmod(round(seconds), 60)
  hours, minute = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minute:02d}:{second:02d}"
  return f"{minute}:{second:02d}"
