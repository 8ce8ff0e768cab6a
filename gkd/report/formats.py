"""Numbers and names as text: digits, durations, mean and spread."""

from collections.abc import Sequence
import math
import re
import statistics
from typing import Any

# A longer name needs room, or places where it may break.
_LONG_NAME = 24
_MAX_CHARACTERS = 1200


def is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_hash(value: Any) -> bool:
  return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{32,}", value))


def is_long(name: str) -> bool:
  return len(name) > _LONG_NAME


def number(value: Any, decimals: int | None = None) -> str:
  """So many decimals, or four digits; an en dash for no number."""
  if not is_number(value) or not math.isfinite(value):
    return "–"
  if decimals is not None:
    return f"{value:,.{decimals}f}"
  if value == int(value) and abs(value) < 1e15:
    return f"{int(value):,}"
  return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


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
  if len(set(values)) <= 1:
    return number(values[0] if values else None, decimals)
  mean, deviation = statistics.fmean(values), statistics.stdev(values)
  if decimals is None:
    decimals = 1 - math.floor(math.log10(deviation))
    if mean:
      decimals = min(decimals, 3 - math.floor(math.log10(abs(mean))))
    decimals = max(0, decimals)
  elif not round(deviation, decimals):
    # As many as its first digit needs: ± 0.00 would say that all are equal.
    decimals = min(decimals + 2, -math.floor(math.log10(deviation)))
  return f"{mean:,.{decimals}f} ± {deviation:,.{decimals}f}"


def interval(
  value: float, low: float, high: float, decimals: int | None = None
) -> str:
  """51.2 [49.8, 52.6]; the value alone where an end is not finite.

  Without `decimals` there are two digits of the width.
  """
  if math.isfinite(high - low) and decimals is None:
    digits = math.floor(math.log10(high - low)) if high > low else -1
    decimals = max(0, 1 - digits)
  text = number(value, decimals)
  if not math.isfinite(high - low):
    return text
  return f"{text} [{number(low, decimals)}, {number(high, decimals)}]"


def setting(value: Any) -> str:
  """A setting with every digit; the beginning of a hash; a dash for nothing."""
  if value is None or value == "":
    return "–"
  if isinstance(value, (list, tuple)):
    return ", ".join(map(str, value))
  return f"{value[:12]}…" if is_hash(value) else str(value)


def excerpt(value: Any) -> str:
  """Text of a value of a record, cut where it becomes unreadable."""
  if isinstance(value, float):
    return number(value)
  if isinstance(value, (list, tuple)):
    value = "\n".join(map(str, value))
  text = str(value)
  cut = text[:_MAX_CHARACTERS]
  return text if text == cut else f"{cut} …"


def plain(name: str) -> str:
  """forward_kl -> forward KL; jsd_0.5 -> JSD 0.5."""
  return re.sub(r"\b(kl|jsd)\b", lambda m: m[0].upper(), name.replace("_", " "))


def unit_sentence(unit: str) -> str:
  """% -> Per cent."""
  name = {"%": "per cent", "s": "seconds"}.get(unit, unit)
  return f"{name.capitalize()}." if unit else ""
