"""Numbers on axes: short, and with as many digits as tell them apart."""

from collections.abc import Sequence
import itertools
import math

from matplotlib.ticker import Formatter


class Ticks(Formatter):
  """0.25, 1,000, 20k, 3e-5: short, and as many digits as ticks need."""

  def __call__(self, x, pos=None) -> str:
    return tick(x, [y for y in self.locs if math.isfinite(y)])


class LogTicks(Formatter):
  """0.01, 10, 1k, 1e-5: each power of ten by itself."""

  def __call__(self, x, pos=None) -> str:
    return tick(x, [x])


def tick(value: float, others: Sequence[float]) -> str:
  """A number on an axis beside its other ticks."""
  if value == 0:
    return "0"
  largest = max(map(abs, others))
  if largest < 1e-3 or largest >= 1e12:
    digits, _, exponent = f"{value:.2e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
  limits = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
  factor, suffix = next(
    ((factor, suffix) for limit, factor, suffix in limits if largest >= limit),
    (1.0, ""),
  )
  ascending = sorted({other / factor for other in others})
  gaps = [b - a for a, b in itertools.pairwise(ascending)]
  gap = min(gaps, default=abs(value / factor))
  decimals = 0
  while decimals < 5 and abs(round(gap, decimals) - gap) > 0.01 * gap:
    decimals += 1
  return f"{value / factor:,.{decimals}f}{suffix}"
