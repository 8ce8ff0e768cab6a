"""Metrics as functions of summed per-example numbers.

A mean is one sum over another, and BLEU a function of summed n-gram counts. A
metric written that way is computed over any resample of the examples from sums
alone, so that its bootstrap costs a matrix product and not a thousand calls
(`evaluation/bootstrap.py`).
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Numbers of each example, and the metrics as functions of their sums.

  Attributes:
    values: [N, S] float64, one row an example.
    of_sums: [..., S] sums over examples -> {name of a metric: [...]}.
  """

  values: np.ndarray
  of_sums: Callable[[np.ndarray], Mapping[str, np.ndarray]]

  def compute(self) -> dict[str, float]:
    """The metrics of all examples."""
    values = self.of_sums(self.values.sum(axis=0))
    return {name: float(value) for name, value in values.items()}

  def standard_errors(self) -> dict[str, float]:
    """The jackknife's: of a mean s/√N, of a ratio as by the delta method.

    NaN of a single example, or where a value is not finite.
    """
    number = len(self.values)
    with np.errstate(invalid="ignore", divide="ignore"):
      without = self.of_sums(self.values.sum(axis=0) - self.values)
      return {
        name: float(np.std(each) * np.sqrt(number - 1))
        for name, each in without.items()
      }

  def resampled(self, counts: np.ndarray) -> Mapping[str, np.ndarray]:
    """{metric: [R]} of resamples; `counts` [R, N] float64 of each example."""
    # Not `@`: BLAS adds up in an order that depends on the number of threads.
    return self.of_sums(np.einsum("rn,ns->rs", counts, self.values))


def means(
  values: Mapping[str, Sequence[float]], *, scale: float = 1.0
) -> Statistics:
  """Means of {name: [N] numbers} over the examples, multiplied by `scale`.

  Example:
    >>> means({"accuracy": [1, 0]}, scale=100).compute()
    {'accuracy': 50.0}
  """
  columns = [np.asarray(column, np.float64) for column in values.values()]
  ones = np.ones_like(columns[0])

  def of_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    return {
      name: scale * sums[..., place] / sums[..., -1]
      for place, name in enumerate(values)
    }

  return Statistics(np.stack([*columns, ones], axis=-1), of_sums)
