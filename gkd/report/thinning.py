"""Long curves with fewer points, and no extreme lost."""

from collections.abc import Sequence
import itertools
import math
from typing import NamedTuple

MAX_POINTS = 400
STRETCHES = 200


class Line(NamedTuple):
  """Points of a line and the band around it; all of one length."""

  xs: Sequence[float]
  ys: Sequence[float]
  low: Sequence[float]
  high: Sequence[float]


def thin(line: Line) -> Line:
  """A line of at most `MAX_POINTS` points as it is; a longer one in stretches.

  Each stretch of neighbours becomes one point: the mean, in a band from the
  lowest to the highest of them, at the last of their steps, so that the line
  ends where the run did.
  """
  count = len(line.xs)
  if count <= MAX_POINTS:
    return line
  ends = [round(n * count / STRETCHES) for n in range(STRETCHES + 1)]
  parts = [slice(*pair) for pair in itertools.pairwise(ends)]
  return Line(
    [line.xs[part][-1] for part in parts],
    [math.fsum(line.ys[part]) / len(line.ys[part]) for part in parts],
    [min(line.low[part]) for part in parts],
    [max(line.high[part]) for part in parts],
  )
