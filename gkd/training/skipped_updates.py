"""Steps whose loss or gradient is not finite, of which a run may skip a few.

Such an update is left out as it is computed: the state keeps its parameters.
Where the state after a step is not finite there is nothing to go on from.
"""

from collections.abc import Mapping
import logging

import numpy as np

from gkd.metrics import Mean
from gkd.training.step import raise_if_not_finite

log = logging.getLogger("gkd")

NOTE = "skipped_updates"  # in the notes of a checkpoint


class SkippedUpdates:
  """Counts the updates that a run has skipped.

  Attributes:
    count: so many so far.
  """

  def __init__(self, limit: int, count: int = 0):
    """`limit`: so many at most; 0 stops at the first, and reports no rate."""
    self.count = count
    self._limit = limit

  def checked(self, means: Mapping[str, Mean], done: int) -> dict[str, Mean]:
    """The metrics of a step to report, those of a skipped one as far as known.

    Args:
      means: the metrics of the step, on the host.
      done: its number in metrics.jsonl, counted from 1.

    Raises:
      FloatingPointError: its numbers are not finite, and it is one too many or
        has left a state that is not finite.
    """
    is_finite = {n: np.isfinite(mean.total) for n, mean in means.items()}
    is_skipped = not (is_finite["loss"] and is_finite["grad_norm"])
    if not (is_skipped and self.count < self._limit):
      raise_if_not_finite(means, done)
    else:
      self.count += 1
      log.warning(
        "step %d: loss or gradient is not finite; its update is skipped, %d of"
        " SKIP_NON_FINITE = %d",
        *(done, self.count, self._limit),
      )
      means = {name: mean for name, mean in means.items() if is_finite[name]}
    rate = {"skipped_rate": Mean(np.float32(is_skipped), np.float32(1))}
    return dict(means) | (rate if self._limit else {})

  def notes(self) -> dict[str, int]:
    """JSON for a checkpoint."""
    return {NOTE: self.count}
