"""Numbers as text: digits, durations, mean and spread."""

from collections.abc import Sequence
import math
import statistics
from typing import Any


def is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def number(value: Any) -> str:
  """Four significant digits, thousands apart; an en dash for no number."""
  if not is_number(value) or not math.isfinite(value):
    return "–"
  if value == int(value) and abs(value) < 1e15:
    return f"{int(value):,}"
  if abs(value) >= 1000:
    return f"{value:,.0f}"
  return f"{value:.4g}"


def duration(seconds: float) -> str:
  """12 s, 3 min 20 s, 2 h 5 min."""
  if not math.isfinite(seconds):
    return "–"
  if seconds < 100:
    return f"{seconds:.3g} s"
  minutes, second = divmod(round(seconds), 60)
  if minutes < 60:
    return f"{minutes} min {second} s"
  return f"{minutes // 60} h {minutes % 60} min"


def spread(values: Sequence[float], decimals: int | None = None) -> str:
  """Mean ± sample standard deviation; one value or equal ones stand alone.

  Args:
    values: finite numbers.
    decimals: of both; None for as many as two digits of the deviation or four
      of the mean need.
  """
  if not values:
    return "–"
  mean = statistics.fmean(values)
  if len(set(values)) == 1:
    return number(mean) if decimals is None else f"{mean:,.{decimals}f}"
  deviation = statistics.stdev(values)
  if decimals is None:
    decimals = 1 - math.floor(math.log10(deviation))
    if mean:
      decimals = min(decimals, 3 - math.floor(math.log10(abs(mean))))
    decimals = max(0, decimals)
  return f"{mean:,.{decimals}f} ± {deviation:.{decimals}f}"


def interval(
  value: float, low: float, high: float, decimals: int | None = None
) -> str:
  """51.2 [49.8, 52.6]; the value alone where an end is not finite.

  Args:
    value: finite.
    low: lower end.
    high: upper end.
    decimals: of all three; None for two digits of the width.
  """
  if not (math.isfinite(low) and math.isfinite(high)):
    return number(value) if decimals is None else f"{value:,.{decimals}f}"
  if decimals is None:
    width = high - low
    decimals = max(0, 1 - math.floor(math.log10(width))) if width > 0 else 2
  value, low, high = (f"{x:,.{decimals}f}" for x in (value, low, high))
  return f"{value} [{low}, {high}]"


def text(value: Any) -> str:
  """A number or a text; an en dash for nothing."""
  if value is None or value == "":
    return "–"
  return number(value) if is_number(value) else str(value)


def plain(value: Any) -> str:
  """A setting as it is written, every digit of it; an en dash for None."""
  return "–" if value is None else str(value)
