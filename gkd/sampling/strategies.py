"""The ways of decoding: to draw or to search, each with its few numbers.

way = BeamSearch(4, alpha=0.6)          # or SamplingParams(temperature=0.7)
way.validate()
print(f"answers {way.describe()}")
"""

import math
import numbers
from typing import Any

import flax.struct

from gkd.sampling.params import SamplingParams
from gkd.types import Array
from gkd.types import UserError


@flax.struct.dataclass
class BeamSearch:
  """To search the best sequences, see `sampling.beam_search`.

  Attributes:
    size: K, beams of each prompt; static.
    alpha: exponent of the length penalty, traced; 0 ranks by log-probability,
      more favours longer sequences. T5X's default.
  """

  size: int = flax.struct.field(pytree_node=False, default=4)
  alpha: float | Array = 0.6

  def validate(self) -> None:
    """Checks a user's values (host numbers).

    Raises:
      UserError: a value of the wrong type or out of range.
    """
    size, alpha = self.size, self.alpha
    if isinstance(size, bool) or not isinstance(size, numbers.Integral):
      raise UserError(f"beam size is {size!r}; expected an integer")
    if size < 1:
      raise UserError(f"beam size is {size}; expected 1 or more")
    if isinstance(alpha, bool) or not isinstance(alpha, numbers.Real):
      raise UserError(f"beam alpha is {alpha!r}; expected a number")
    if not 0 <= alpha < math.inf:
      raise UserError(
        f"beam alpha is {alpha}; expected 0 (no length penalty) or more, as"
        " T5's 0.6"
      )

  def settings(self) -> dict[str, Any]:
    """The strategy and its numbers as JSON."""
    numbers = {"beam_size": self.size, "beam_alpha": self.alpha}
    return {"strategy": "beam_search", **numbers}

  def describe(self) -> str:
    """One phrase for the start-up print (host numbers)."""
    beams = "1 beam" if self.size == 1 else f"{self.size} beams"
    return f"by a search with {beams}, alpha {self.alpha:g}"

  @property
  def label(self) -> str:
    """What tells its metrics from those of other ways of decoding."""
    return f"beam{self.size}"

  @property
  def is_random(self) -> bool:
    """Whether a second answer to a prompt can differ from the first."""
    return False


def check_beams(num_beams: int, num_ids: int) -> None:
  """Refuses a search with more beams than there are first tokens.

  Args:
    num_beams: K.
    num_ids: ids to choose among, without those that are masked.
  """
  if num_beams > num_ids:
    raise UserError(
      f"beam size is {num_beams}, but the model chooses among {num_ids} ids;"
      f" give at most {num_ids}"
    )


# Both have `validate`, `describe`, `label` and `is_random`.
Strategy = SamplingParams | BeamSearch
