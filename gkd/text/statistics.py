"""Metrics as functions of summed per-example numbers.

A mean is one sum over another, and BLEU a function of summed n-gram counts. A
metric written that way is computed over any resample of the examples from sums
alone, so that its bootstrap costs a matrix product and not a thousand calls
(`evaluation/bootstrap.py`).

  found = means({"accuracy": [1, 0, 1]}, scale=100.0)
  found.compute()                              # {"accuracy": 66.7}
  found.resampled(np.array([[3.0, 0, 0]]))     # {"accuracy": [100.0]}
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
    found = self.of_sums(self.values.sum(axis=0))
    return {name: float(value) for name, value in found.items()}

  def resampled(self, counts: np.ndarray) -> Mapping[str, np.ndarray]:
    """The metrics of resamples.

    Args:
      counts: [R, N] float64, how often each resample has each example.

    Returns:
      {name of a metric: [R]}.
    """
    # Not `@`: BLAS adds up in an order that depends on the number of threads.
    return self.of_sums(np.einsum("rn,ns->rs", counts, self.values))


def means(
  values: Mapping[str, Sequence[float]], *, scale: float = 1.0
) -> Statistics:
  """Means over the examples.

  Args:
    values: {name: [N] numbers}.
    scale: factor of all means; 100 makes percentages of shares.
  """
  columns = [np.asarray(column, np.float64) for column in values.values()]
  ones = np.ones_like(columns[0])

  def of_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    return {
      name: scale * sums[..., place] / sums[..., -1]
      for place, name in enumerate(values)
    }

  return Statistics(np.stack([*columns, ones], axis=-1), of_sums)
