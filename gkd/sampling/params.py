"""Sampling parameters: temperature, top-k and top-p.

params = SamplingParams(temperature=0.7, top_k=40)
params.validate()
"""

import math
import numbers
from typing import Any

import flax.struct

from gkd.sampling import filters
from gkd.types import Array
from gkd.types import UserError


@flax.struct.dataclass
class SamplingParams:
  """How tokens are chosen. All values are traced: none of them compiles.

  Attributes:
    temperature: 1 is the model's own distribution, 0 is greedy.
    top_k: keep the k largest logits and their ties; 0 keeps all.
    top_p: keep the smallest set of ids, ties included, whose probability is at
      least p, after temperature and top-k; 1 keeps all.
  """

  temperature: float | Array = 1.0
  top_k: int | Array = 0
  top_p: float | Array = 1.0

  def validate(self) -> None:
    """Checks a user's values (host numbers).

    Raises:
      UserError: a value of the wrong type or out of range.
    """
    for name in ("temperature", "top_k", "top_p"):
      value = getattr(self, name)
      wanted = numbers.Integral if name == "top_k" else numbers.Real
      if isinstance(value, bool) or not isinstance(value, wanted):
        raise UserError(
          f"decoding {name} is {value!r}; expected"
          f" {'an integer' if name == 'top_k' else 'a number'}"
        )
    cold = not filters.MIN_TEMPERATURE <= self.temperature < math.inf
    if cold and self.temperature != 0:
      raise UserError(
        f"decoding temperature is {self.temperature}; expected 0 (greedy) or a"
        f" finite number of at least {filters.MIN_TEMPERATURE}"
      )
    if self.top_k < 0:
      raise UserError(
        f"decoding top_k is {self.top_k}; expected a positive number of ids, or"
        " 0 to keep all"
      )
    if not 0 < self.top_p <= 1:
      raise UserError(
        f"decoding top_p is {self.top_p}; expected a probability above 0, or 1"
        " to keep all"
      )

  def settings(self) -> dict[str, Any]:
    """The strategy and its numbers as JSON."""
    numbers = {
      name: getattr(self, name) for name in ("temperature", "top_k", "top_p")
    }
    return {"strategy": "sampling", **numbers}

  def describe(self) -> str:
    """One phrase for the start-up print (host numbers)."""
    if self.temperature == 0:
      return "greedily"
    words = f"at temperature {self.temperature:g}"
    if self.top_k:
      words += f", top-k {self.top_k}"
    if self.top_p < 1:
      words += f", top-p {self.top_p:g}"
    return words

  @property
  def label(self) -> str:
    """What tells its metrics from those of other ways; none when greedy."""
    return f"t{self.temperature:g}" if self.temperature else ""

  @property
  def is_random(self) -> bool:
    """Whether a second answer to a prompt can differ from the first."""
    return self.temperature != 0
