"""Detectors of teacher hacking that need no oracle, on log-log axes.

On fresh data the distance of a student to its teacher on held-out prompts
follows a power law in the number of updates, log d = a - b log step; a student
that memorises fixed texts leaves that line upward (Tiapkin et al., arXiv
2502.02671), and what it still gains on the texts it is trained on no longer
reaches held-out prompts. Five scores say how strongly an evaluation speaks for
that:

  memorised    share of the gain on the trained texts that does not reach
               held-out prompts
  z            standard deviations above the extrapolated power law
  delta_bic    evidence for a line that bends upward against a straight one
  gap_growth   held-out over trained distance, relative to the first evaluations
  repeats      uses of each fixed (prompt, text) pair so far

Each score at evaluation n is a function of the evaluations up to n alone, so
that a replay of a whole series gives what was known at the time.

  found = scores(Series(steps, held_out, trained, repeats))
  alarms(found, {"memorised": 0.8, "repeats": 1.0}, consecutive=2)   # [n] bool

Series may have leading axes [..., n] over the same steps [n].
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

WINDOW = 12  # evaluations that a power law is fitted to, at most
MIN_POINTS = 8  # and at least
# The gain is that of the last updates, a third of all before it to now, and at
# least 10 %: of a student that learns no more nothing can be said.
_RECENT = 3.0
_LEAST_GAIN = 0.1
# Steps of two evaluations that count: closer ones tell more of the noise.
LEAST_RATIO = 1.12
# Relative; evaluations on a fixed set of some hundred prompts vary as much.
_LEAST_NOISE = 0.01
_BASELINE = 5  # first ratios, whose median counts as no gap
_SEGMENT = (
  3  # least points of a line on each side of a change, the knot in both
)


class Score(NamedTuple):
  """What speaks for a departure.

  Attributes:
    words: of its value.
    needs_trained: whether it is of the distance on the trained texts.
  """

  words: str
  needs_trained: bool = False


SCORES = {
  "memorised": Score(
    "{:.0%} of the gain on the trained texts, on log axes, does not reach"
    " held-out prompts",
    needs_trained=True,
  ),
  "gap_growth": Score(
    "held-out over trained distance has grown {:.2f} times",
    needs_trained=True,
  ),
  "repeats": Score("each fixed text was used {:.1f} times"),
  "z": Score(
    "held-out distance is {:.1f} standard deviations above its power law"
  ),
  "delta_bic": Score("the evidence for an upward bend is {:.1f} (ΔBIC)"),
}


class Series(NamedTuple):
  """What the evaluations of a run found; NaN where something is unknown."""

  steps: np.ndarray  # [n] finished updates, increasing, at least 1
  held_out: np.ndarray  # [..., n] distance to the teacher on held-out prompts
  trained: np.ndarray  # [..., n] the same on the texts as trained
  repeats: np.ndarray  # [..., n] uses of each fixed pair


class PowerLaw(NamedTuple):
  """log value = intercept + slope · log step, and how far values scatter."""

  intercept: np.ndarray  # [...]
  slope: np.ndarray  # [...] -b
  sigma: np.ndarray  # [...] standard deviation of log value
  logs: np.ndarray  # [w] log steps of the window

  @property
  def slope_error(self) -> np.ndarray:
    """Standard error [...] of the slope, as of least squares."""
    return self.sigma / np.sqrt(self._spread)

  @property
  def _spread(self) -> float:
    return np.sum((self.logs - self.logs.mean()) ** 2)

  def predict(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log values at steps [k], and their prediction standard deviations."""
    x, center = np.log(steps), self.logs.mean()
    expected = self.intercept[..., None] + self.slope[..., None] * x
    variance = 1 + 1 / len(self.logs) + (x - center) ** 2 / self._spread
    return expected, self.sigma[..., None] * np.sqrt(variance)


class ChangePoint(NamedTuple):
  """The best continuous two-piece line against one line."""

  knot: np.ndarray  # [...] index of the point at which the slope changes
  delta_bic: np.ndarray  # [...] above 0 in favour of two pieces
  slope_change: np.ndarray  # [...]


def fit_power_law(steps: np.ndarray, values: np.ndarray) -> PowerLaw:
  """Theil-Sen fit of values [..., w] at steps [w] on log-log axes."""
  x, y = np.log(steps), _log(values)
  first, second = np.triu_indices(len(steps), 1)
  slopes = (y[..., second] - y[..., first]) / (x[second] - x[first])
  slope = np.median(slopes, axis=-1)
  residuals = y - slope[..., None] * x
  intercept = np.median(residuals, axis=-1)
  squares = np.sum((residuals - intercept[..., None]) ** 2, axis=-1)
  sigma = np.sqrt(squares / (len(steps) - 2))
  return PowerLaw(intercept, slope, np.maximum(sigma, _LEAST_NOISE), x)


def window(n: int, consecutive: int) -> slice:
  """Evaluations whose power law evaluation n is compared with.

  The last `consecutive` ones, n among them, stay out: a departure must not bend
  the line that it is measured by.
  """
  stop = n + 1 - consecutive
  return slice(max(0, stop - WINDOW), max(0, stop))


def departures(
  steps: np.ndarray, values: np.ndarray, consecutive: int
) -> np.ndarray:
  """Distance z [..., n] above the power law of the evaluations before."""
  z = np.full(np.shape(values), np.nan)
  for n in range(MIN_POINTS - 1 + consecutive, len(steps)):
    before = window(n, consecutive)
    fit = fit_power_law(steps[before], values[..., before])
    expected, deviation = fit.predict(steps[n : n + 1])
    z[..., n] = ((_log(values[..., [n]]) - expected) / deviation)[..., 0]
  return z


def change_point(steps: np.ndarray, values: np.ndarray) -> ChangePoint:
  """Where a line on log-log axes bends, by the Bayesian information criterion.

  BIC = n log(RSS / n) + p log n with p = 2 for a line, 4 for two pieces that
  meet: intercept, two slopes and the knot, which is one of the points.
  """
  x, y = np.log(steps), _log(values)
  y = y - y.mean(axis=-1, keepdims=True)
  num = len(x)
  ones = np.ones(num)
  knots = range(_SEGMENT - 1, num - _SEGMENT + 1)
  designs = [np.stack([ones, x], axis=1)]
  designs += [np.stack([ones, x, np.maximum(x - x[k], 0)], 1) for k in knots]
  solved = [y @ np.linalg.pinv(design).T for design in designs]
  rss = [
    np.sum((y - coefficients @ design.T) ** 2, axis=-1)
    for design, coefficients in zip(designs, solved, strict=True)
  ]
  # Noise that no evaluation falls below keeps exact lines from bending.
  rss = np.stack(rss, axis=-1) + num * _LEAST_NOISE**2 / 4
  best = np.argmin(rss[..., 1:], axis=-1)
  least = np.take_along_axis(rss[..., 1:], best[..., None], axis=-1)[..., 0]
  delta = num * np.log(rss[..., 0] / least) - 2 * np.log(num)
  changes = np.stack([c[..., 2] for c in solved[1:]], axis=-1)
  change = np.take_along_axis(changes, best[..., None], axis=-1)[..., 0]
  return ChangePoint(best + knots[0], delta, change)


def bends(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
  """delta_bic [..., n] of an upward bend; negative where there is none."""
  found = np.full(np.shape(values), np.nan)
  for n in range(MIN_POINTS, len(steps)):
    last = slice(max(0, n + 1 - 2 * WINDOW), n + 1)
    change = change_point(steps[last], values[..., last])
    # Negative evidence stays so, whichever way the best knot bends.
    found[..., n] = np.where(
      change.slope_change > 0, change.delta_bic, -np.abs(change.delta_bic)
    )
  return found


def gap_growth(held_out: np.ndarray, trained: np.ndarray) -> np.ndarray:
  """Held-out over trained distance [..., n], relative to its first values.

  The ratio itself is not 1 without memorising where the texts are not the
  teacher's own.
  """
  ratio = held_out / trained
  if ratio.shape[-1] < _BASELINE:
    return np.full_like(ratio, np.nan)
  known = np.isfinite(ratio)
  num_known = np.cumsum(known, axis=-1)
  first = np.where(known & (num_known <= _BASELINE), ratio, np.nan)
  baseline = np.sort(first, axis=-1)[..., [_BASELINE // 2]]  # NaN comes last
  return np.where(num_known >= _BASELINE, ratio / baseline, np.nan)


def memorised(
  steps: np.ndarray, held_out: np.ndarray, trained: np.ndarray
) -> np.ndarray:
  """1 - slope [..., n] of log held-out against log trained distance.

  On fresh texts both fall alike, and it is near 0; at 1 the held-out distance
  stands still while the other falls, beyond 1 it rises.
  """
  found = np.full(np.shape(held_out), np.nan)
  for n in range(2, len(steps)):
    first = min(n - 2, np.searchsorted(steps, steps[n] / _RECENT))
    x, y = (_log(z[..., first : n + 1]) for z in (trained, held_out))
    x, y = (z - z.mean(axis=-1, keepdims=True) for z in (x, y))
    slope = np.sum(x * y, axis=-1) / np.sum(x * x, axis=-1)
    is_learning = x[..., 0] - x[..., -1] >= _LEAST_GAIN
    found[..., n] = np.where(is_learning, 1 - slope, np.nan)
  return found


def scores(series: Series, consecutive: int) -> dict[str, np.ndarray]:
  """All scores [..., n] by name; NaN where there is too little to say."""
  steps, held_out, trained, repeats = series
  with np.errstate(all="ignore"):  # a distance may be infinite
    return {
      "memorised": memorised(steps, held_out, trained),
      "gap_growth": gap_growth(held_out, trained),
      "repeats": repeats,
      "z": departures(steps, held_out, consecutive),
      "delta_bic": bends(steps, held_out),
    }


def alarms(
  found: Mapping[str, np.ndarray],
  thresholds: Mapping[str, float],
  consecutive: int,
) -> np.ndarray:
  """[..., n] whether the last `consecutive` points reach all thresholds."""
  above = np.all(
    [found[name] >= least for name, least in thresholds.items()], axis=0
  )
  lasting = above.copy()
  for lag in range(1, consecutive):
    lasting[..., lag:] &= above[..., :-lag]
    lasting[..., :lag] = False
  return lasting


def _log(values: np.ndarray) -> np.ndarray:
  return np.log(np.maximum(values, np.finfo(np.float64).tiny))
