"""Generation of text by a model, batch by batch."""

from collections.abc import Iterable
from collections.abc import Iterator
from typing import TypeVar

import jax

_T = TypeVar("_T")


def prefetch(dispatched: Iterable[_T]) -> Iterator[_T]:
  """Results in order, each complete; the device computes the next meanwhile.

  Args:
    dispatched: yields a result as soon as its computation is dispatched.
  """
  waiting: list[_T] = []
  for result in dispatched:
    waiting.append(result)
    if len(waiting) > 1:
      yield jax.block_until_ready(waiting.pop(0))
  yield from map(jax.block_until_ready, waiting)
