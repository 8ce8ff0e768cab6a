"""Decoding strategies: sampling and beam search, each with its few numbers.

strategy = BeamSearch(4, alpha=0.6)     # or SamplingParams(temperature=0.7)
strategy.validate()
print(f"generated {strategy.describe()}")
"""

import math
import numbers
from typing import Any
from typing import ClassVar
from typing import Protocol

import flax.struct
import jax
import numpy as np

from gkd.errors import check_number
from gkd.sampling import beam_search
from gkd.sampling.sampler import Samples
from gkd.types import Array
from gkd.types import Key


class Strategy(Protocol):
  """What the generator and its callers use of a decoding strategy.

  A pytree: its numbers are traced, what determines shapes is static.

  Attributes:
    is_search: whether one call finds several sequences of a prompt, and no key
      is used.
    is_random: whether a second sample of a prompt can differ from the first.
    max_samples: different samples of a prompt that there can be; None for any
      number.
    label: distinguishes metric names of several strategies; "" when greedy.
  """

  is_search: bool
  is_random: bool
  max_samples: int | None
  label: str

  def validate(self) -> None:
    """Raises a UserError if a number (of the host) is out of range."""

  def check_num_ids(self, num_ids: int) -> None:
    """Raises a UserError if a number is too large for so many ids."""

  def settings(self) -> dict[str, Any]:
    """The strategy and its numbers as JSON."""

  def describe(self) -> str:
    """One phrase for the start-up print."""

  def as_arrays(self) -> "Strategy":
    """Numbers of fixed types, so that 1 and 1.0 share a compiled program."""

  def generate(self, *prompts, key: Key, num_best: int, **limits) -> Samples:
    """Sequences [B, num_best, T]; traced.

    Args:
      *prompts: model, params, inputs, input_mask and example_ids, as this and
        all else in `generate.generate`.
      key: of the draws.
      num_best: sequences of each prompt.
      **limits: max_length, eos_ids and forbidden_ids.
    """


@flax.struct.dataclass
class BeamSearch:
  """The strategy that searches the best sequences, see `beam_search`.

  Attributes:
    size: K, beams of each prompt; static.
    alpha: exponent of the length penalty, traced; 0 ranks by log-probability,
      more favours longer sequences. T5X's default.
  """

  is_search: ClassVar[bool] = True
  is_random: ClassVar[bool] = False

  size: int = flax.struct.field(pytree_node=False, default=4)
  alpha: float | Array = 0.6

  def validate(self) -> None:
    check_number(
      "beam size",
      self.size,
      lambda size: size >= 1,
      "a whole number, 1 or more",
      numbers.Integral,
    )
    check_number(
      "beam alpha",
      self.alpha,
      lambda alpha: 0 <= alpha < math.inf,
      "0 (no length penalty) or a number above it, as T5's 0.6",
    )

  def check_num_ids(self, num_ids: int) -> None:
    beam_search.check_num_beams(self.size, num_ids)

  def settings(self) -> dict[str, Any]:
    numbers = {"beam_size": self.size, "beam_alpha": self.alpha}
    return {"strategy": "beam_search", **numbers}

  def describe(self) -> str:
    beams = "1 beam" if self.size == 1 else f"{self.size} beams"
    return f"by a search with {beams}, alpha {self.alpha:g}"

  @property
  def label(self) -> str:
    return f"beam{self.size}"

  @property
  def max_samples(self) -> int:
    return self.size

  def as_arrays(self) -> "BeamSearch":
    return BeamSearch(self.size, np.float32(self.alpha))

  def generate(self, *prompts, key: Key, num_best: int, **limits) -> Samples:
    del key
    beams = beam_search.beam_search(
      *prompts, num_beams=self.size, alpha=self.alpha, **limits
    )
    return jax.tree.map(lambda array: array[:, :num_best], beams)
