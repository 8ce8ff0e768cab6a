"""When something is due: every so many steps, or evenly on a log scale."""

import math


def due(done: int, period: int) -> bool:
  """Whether something of this period happens after `done` steps; 0: never."""
  return bool(period) and done > 0 and done % period == 0


def log_spaced(done: int, per_decade: int) -> bool:
  """Whether `done` is one of the steps round(10^(k/n)), n of them a decade.

  Three a decade are 1, 2, 5, 10, 22, 46, 100, …; early on, where the steps
  would fall together, each comes once.

  Args:
    done: finished steps.
    per_decade: n; 0 for none.
  """
  if not per_decade or done < 1:
    return False
  nearest = round(per_decade * math.log10(done))
  # One to each side: the rounded step's logarithm may be nearer to another.
  return any(
    round(10 ** (k / per_decade)) == done
    for k in range(max(nearest - 1, 0), nearest + 2)
  )
