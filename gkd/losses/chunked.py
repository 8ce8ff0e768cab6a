"""Works on target positions a few at a time, so that no [B, T, V] exists.

Logits over a full vocabulary are what runs out of memory: two models at
B 32, T 256, V 32128 hold 2 GiB. Here heads are applied to one chunk of hidden
states at a time, and the backward pass recomputes the chunk's logits.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def sum_over_chunks(
  function: Callable[[Any], Any], arrays: Any, chunk_size: int | None
) -> Any:
  """sum_c function(arrays[:, c]) over chunks c of the positions.

  Equals `function(arrays)` in value and gradient for a function that sums over
  positions, and to which positions of zeros add nothing: the last chunk is
  filled with zeros when T does not divide.

  Args:
    function: from arrays [B, chunk_size, ...] to a pytree of sums. It may close
      over traced values (parameters of a head); their gradients accumulate.
    arrays: pytree of arrays [B, T, ...].
    chunk_size: number of positions at a time; more than T is one chunk of T.
      None is `function(arrays)` itself, whose logits the backward pass keeps.

  Returns:
    What `function` returns, summed over the chunks.
  """
  return map_chunks(lambda chunk: ((), function(chunk)), arrays, chunk_size)[1]


def map_chunks(
  function: Callable[[Any], tuple[Any, Any]],
  arrays: Any,
  chunk_size: int | None,
) -> tuple[Any, Any]:
  """As `sum_over_chunks`, of a function with values by position beside sums.

  Args:
    function: from arrays [B, chunk_size, ...] to a pytree of values
      [B, chunk_size] and one of sums.
    arrays: as chunk_size those of `sum_over_chunks`.

  Returns:
    Values [B, T] and sums.
  """
  if chunk_size is None:
    return function(arrays)
  num_positions = jax.tree.leaves(arrays)[0].shape[1]
  size = min(chunk_size, num_positions)
  num_chunks = -(-num_positions // size)
  fill = num_chunks * size - num_positions

  def split(array):
    pads = [(0, 0), (0, fill)] + [(0, 0)] * (array.ndim - 2)
    array = jnp.pad(array, pads)
    array = array.reshape(array.shape[0], num_chunks, size, *array.shape[2:])
    return jnp.moveaxis(array, 1, 0)

  def join(values):
    values = jnp.moveaxis(values, 0, 1)
    return values.reshape(values.shape[0], -1)[:, :num_positions]

  # prevent_cse is only needed outside scan, and costs speed inside it.
  body = jax.checkpoint(function, prevent_cse=False)
  _, (values, sums) = jax.lax.scan(
    lambda carry, chunk: (carry, body(chunk)),
    None,
    jax.tree.map(split, arrays),
  )
  sums = jax.tree.map(lambda per_chunk: jnp.sum(per_chunk, axis=0), sums)
  return jax.tree.map(join, values), sums
