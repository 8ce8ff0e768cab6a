"""Long curves with fewer points, in which no extreme is lost."""

from collections.abc import Sequence
import itertools
import math
from typing import NamedTuple

MAX_POINTS = 400
NUM_BINS = 200


class Line(NamedTuple):
  """Points of a line and the band around it; all of one length."""

  xs: Sequence[float]
  ys: Sequence[float]
  low: Sequence[float]
  high: Sequence[float]


def downsample(line: Line) -> Line:
  """A line of at most `MAX_POINTS` points as it is; a longer one in bins.

  Each bin of neighbours becomes one point: their mean, in a band from the
  lowest to the highest, at the last of their steps, so that the line ends where
  the run did.
  """
  count = len(line.xs)
  if count <= MAX_POINTS:
    return line
  edges = [round(n * count / NUM_BINS) for n in range(NUM_BINS + 1)]
  bins = [slice(*pair) for pair in itertools.pairwise(edges)]
  return Line(
    [line.xs[part][-1] for part in bins],
    [math.fsum(line.ys[part]) / len(line.ys[part]) for part in bins],
    [min(line.low[part]) for part in bins],
    [max(line.high[part]) for part in bins],
  )
