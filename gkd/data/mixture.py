"""Several token caches read as one stream, each with its share of the rows.

Which cache gives row n of a run is a closed form, so nothing has to be saved.
With rates w₁, w₂, … as whole numbers of sum W, components are split off one by
one: of the first m rows that are left for components j, j+1, …, component j
gets ⌊m · w_j / (w_j + w_j+1 + …)⌋. Hence

- any W rows from a multiple of W on hold exactly w_j rows of component j;
- in between a component is less than one row for each component off its share;
- the k-th row that component j gives is row k of its own stream: the same that
  it would give alone.
"""

from collections.abc import Iterable
import fractions
import math

from gkd.data import cache_info
from gkd.data.cache import TokenCache
from gkd.text import vocabulary as vocabularies
from gkd.types import UserError


class Mixture:
  """Caches of one vocabulary with their rates.

  Attributes:
    caches: ordered by task, split and content, however they were given.
    rates: of the caches, as the smallest whole numbers.
  """

  def __init__(self, components: Iterable[tuple[TokenCache, float]]):
    """Takes caches of one vocabulary with rates above 0, in any order."""
    # A configuration that gin wrote out has its names sorted.
    components = sorted(components, key=lambda pair: _key(pair[0]))
    assert components, "a mixture has components"
    self.caches = tuple(cache for cache, _ in components)
    rates = [_checked(*pair) for pair in components]
    scale = math.lcm(*(rate.denominator for rate in rates))
    whole = [int(rate * scale) for rate in rates]
    self.rates = tuple(rate // math.gcd(*whole) for rate in whole)
    for left, right in zip(self.caches, self.caches[1:], strict=False):
      if _key(left) == _key(right):
        raise UserError(
          f"cache {right.path} is twice in the mixture (also as {left.path});"
          " give it once, with a higher rate"
        )
      _check_same_vocabulary(left, right)
    # (w_j, w_j + w_j+1 + …); the last component takes what is left.
    self._parts = [
      (rate, sum(self.rates[j:])) for j, rate in enumerate(self.rates)
    ][:-1]

  @property
  def vocabulary(self) -> vocabularies.Vocabulary:
    return self.caches[0].vocabulary

  @property
  def shares(self) -> tuple[float, ...]:
    """Of the caches; they sum to 1."""
    return tuple(rate / sum(self.rates) for rate in self.rates)

  def split(self, n: int) -> tuple[int, int]:
    """Component of row n of a run, and the place in its own stream."""
    for component, (rate, total) in enumerate(self._parts):
      before = n * rate // total
      if (n + 1) * rate // total > before:
        return component, before
      n -= before
    return len(self._parts), n


def _key(cache: TokenCache) -> tuple[str, str, str]:
  return cache.info["task"], cache.info["split"], cache.info["hash"]


def _checked(cache: TokenCache, rate: float) -> fractions.Fraction:
  number = type(rate) in (int, float)
  if not (number and math.isfinite(rate) and rate > 0):
    raise UserError(
      f"the rate of {cache.info['task']} in the mixture is {rate!r}; give a"
      " number above 0, or leave it out"
    )
  return fractions.Fraction(str(rate))  # 0.1 is a tenth, as it was written


def _check_same_vocabulary(left: TokenCache, right: TokenCache) -> None:
  if cache_info.same_vocabulary(left.info, right.vocabulary):
    return
  difference = vocabularies.first_difference(left.vocabulary, right.vocabulary)
  raise UserError(
    f"caches {left.path} and {right.path} cannot be mixed, their vocabularies"
    f" differ: {difference}; make them with one VOCABULARY and EXTRA_IDS"
  )
