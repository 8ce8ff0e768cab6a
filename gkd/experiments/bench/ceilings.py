"""What the machine can do at most: one matrix product, one pass over memory.

Measured and not read from a data sheet, so that they hold for the threads, the
clock and the precision that the process has.
"""

from collections.abc import Callable
import time
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

_TRIES = 5
# (rows of the square matrices, bytes of the array).
_SIZES = {"cpu": (2048, 1 << 28)}
_OF_ACCELERATORS = 8192, 1 << 30


class Ceilings(NamedTuple):
  """Of one device, the best of several tries.

  Attributes:
    flops: of a large matrix product, multiply-adds times two, a second.
    bandwidth: bytes read and written a second.
  """

  flops: float
  bandwidth: float


def measure(dtype: Any) -> Ceilings:
  """The ceilings of the first device, for matrix products in `dtype`."""
  rows, size = _SIZES.get(jax.default_backend(), _OF_ACCELERATORS)
  matrix = jax.random.normal(jax.random.key(0), (rows, rows)).astype(dtype)
  product = jax.jit(jnp.matmul)
  flops = 2 * rows**3 / _least_seconds(lambda: product(matrix, matrix))
  # In place: fresh pages would cost more than the copy on a CPU.
  add_one = jax.jit(lambda x: x + 1, donate_argnums=0)
  array = jnp.zeros(size // 4, jnp.float32)

  def copy():
    nonlocal array
    array = add_one(array)
    return array

  return Ceilings(flops, 2 * size / _least_seconds(copy))


def _least_seconds(function: Callable[[], jax.Array]) -> float:
  """Of several calls; the first compiles."""
  jax.block_until_ready(function())
  seconds = []
  for _ in range(_TRIES):
    start = time.perf_counter()
    jax.block_until_ready(function())
    seconds.append(time.perf_counter() - start)
  return min(seconds)
