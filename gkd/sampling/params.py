"""Sampling parameters: temperature, top-k and top-p.

params = SamplingParams(temperature=0.7, top_k=40)
params.validate()
"""

import math
import numbers
from typing import Any
from typing import ClassVar

import flax.struct
import jax
import numpy as np

from gkd.errors import check_number
from gkd.sampling import filters
from gkd.sampling import sampler
from gkd.sampling.sampler import Samples
from gkd.types import Array
from gkd.types import Key
from gkd.types import UserError


@flax.struct.dataclass
class SamplingParams:
  """The `strategies.Strategy` that draws each token. All values are traced.

  Attributes:
    temperature: 1 is the model's own distribution, 0 is greedy.
    top_k: keep the k largest logits and their ties; 0 keeps all.
    top_p: keep the smallest set of ids, ties included, whose probability is at
      least p, after temperature and top-k; 1 keeps all.
  """

  is_search: ClassVar[bool] = False

  temperature: float | Array = 1.0
  top_k: int | Array = 0
  top_p: float | Array = 1.0

  def validate(self) -> None:
    coldest = filters.MIN_TEMPERATURE
    check_number(
      "decoding temperature",
      self.temperature,
      lambda x: x == 0 or coldest <= x < math.inf,
      f"0 (greedy) or a finite number of at least {coldest}",
    )
    check_number(
      "decoding top_k",
      self.top_k,
      lambda k: 0 <= k < 1 << 31,
      "a whole number of ids, an int32 above 0, or 0 to keep all",
      numbers.Integral,
    )
    check_number(
      "decoding top_p",
      self.top_p,
      lambda p: 0 < p <= 1,
      "a probability above 0, or 1 to keep all",
    )

  def check_num_ids(self, num_ids: int) -> None:
    if self.top_k >= num_ids:
      raise UserError(
        f"decoding top_k is {self.top_k}, but the model chooses among {num_ids}"
        " ids, which keeps all of them; give fewer, or 0 to keep all"
      )

  def settings(self) -> dict[str, Any]:
    return {"strategy": "sampling", **vars(self)}

  def describe(self) -> str:
    if self.temperature == 0:
      return "greedily"
    text = f"at temperature {self.temperature:g}"
    if self.top_k:
      text += f", top-k {self.top_k}"
    if self.top_p < 1:
      text += f", top-p {self.top_p:g}"
    return text

  @property
  def label(self) -> str:
    return f"t{self.temperature:g}" if self.temperature else ""

  @property
  def is_random(self) -> bool:
    return self.temperature != 0

  @property
  def max_samples(self) -> int | None:
    return None if self.is_random else 1

  def as_arrays(self) -> "SamplingParams":
    return SamplingParams(
      temperature=np.float32(self.temperature),
      top_k=np.int32(self.top_k),
      top_p=np.float32(self.top_p),
    )

  def generate(self, *prompts, key: Key, num_best: int, **limits) -> Samples:
    assert num_best == 1, "samples of a prompt come from several keys"
    samples = sampler.sample(*prompts, key, **vars(self), **limits)
    return jax.tree.map(lambda array: array[:, None], samples)
