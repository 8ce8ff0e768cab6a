"""Works on target positions a few at a time, so that no [B, T, V] exists.

Logits over a full vocabulary are what runs out of memory: two models at
B 32, T 256, V 32128 hold 2 GiB. Here heads are applied to one chunk of hidden
states at a time. `loss_over_chunks` takes the gradient of a chunk with its
loss; in the others the backward pass makes the logits of a chunk again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gkd.metrics import Mean
from gkd.types import Array

Sums = tuple[Array, dict[str, Mean]]  # loss, metrics


def loss_over_chunks(
  function: Callable[[Array, Any], Sums],
  head: Callable[[Array], Array],
  hidden: Array,
  arrays: Any,
  chunk_size: int | None,
) -> Sums:
  """sum_c function(head(hidden[:, c]), arrays[:, c]) over chunks c.

  The gradient of a chunk is taken where its value is, so that logits are made
  once: a loss is one number, and so its gradient is known but for a factor. It
  reaches `hidden` and what `head` closes over, nothing else.

  Args:
    function: from logits [B, chunk_size, V] and arrays [B, chunk_size, ...] to
      a loss and metrics, both sums over positions, to which positions of zeros
      add nothing: the last chunk is filled with zeros when T does not divide.
    head: hidden states to logits; it may close over traced parameters.
    hidden: [B, T, D].
    arrays: pytree of arrays [B, T, ...].
    chunk_size: number of positions at a time; more than T is one chunk of T.
      None is `function(head(hidden), arrays)`, whose logits exist at once.

  Returns:
    What `function` returns, summed over the chunks.
  """
  if chunk_size is None:
    loss, metrics = function(head(hidden), jax.lax.stop_gradient(arrays))
    return loss, jax.lax.stop_gradient(metrics)
  chunks = _split((hidden, arrays), chunk_size)
  first = jax.tree.map(lambda x: x[0], chunks)
  head, params = jax.closure_convert(head, first[0])
  function, rest = jax.closure_convert(
    function, jax.eval_shape(head, first[0], *params), first[1]
  )

  def of_chunk(hidden, params, arrays, rest):
    return function(head(hidden, *params), arrays, *rest)

  differentiate = jax.value_and_grad(of_chunk, argnums=(0, 1), has_aux=True)

  def forward(hidden, params, arrays, rest):
    def one(total, chunk):
      found, (by_hidden, by_params) = differentiate(
        chunk[0], params, chunk[1], rest
      )
      return jax.tree.map(jnp.add, total, by_params), (found, by_hidden)

    zeros = jax.tree.map(jnp.zeros_like, params)
    by_params, (found, by_hidden) = jax.lax.scan(one, zeros, (hidden, arrays))
    return _sum(found), (by_hidden, by_params)

  def backward(gradients, cotangents):
    by_loss = cotangents[0]  # metrics carry no gradient
    scaled = jax.tree.map(lambda x: (x * by_loss).astype(x.dtype), gradients)
    return *scaled, None, None

  over_chunks = jax.custom_vjp(lambda *arguments: forward(*arguments)[0])
  over_chunks.defvjp(forward, backward)
  return over_chunks(chunks[0], params, chunks[1], rest)


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

  def join(values):
    values = jnp.moveaxis(values, 0, 1)
    return values.reshape(values.shape[0], -1)[:, :num_positions]

  # prevent_cse is only needed outside scan, and costs speed inside it.
  body = jax.checkpoint(function, prevent_cse=False)
  _, (values, sums) = jax.lax.scan(
    lambda carry, chunk: (carry, body(chunk)),
    None,
    _split(arrays, chunk_size),
  )
  return jax.tree.map(join, values), _sum(sums)


def _split(arrays: Any, chunk_size: int) -> Any:
  """Arrays [B, T, ...] -> [chunks, B, chunk_size, ...], zeros in the last."""

  def one(array):
    num_positions = array.shape[1]
    size = min(chunk_size, num_positions)
    num_chunks = -(-num_positions // size)
    fill = num_chunks * size - num_positions
    array = jnp.pad(array, [(0, 0), (0, fill)] + [(0, 0)] * (array.ndim - 2))
    array = array.reshape(array.shape[0], num_chunks, size, *array.shape[2:])
    return jnp.moveaxis(array, 1, 0)

  return jax.tree.map(one, arrays)


def _sum(of_chunks: Any) -> Any:
  return jax.tree.map(lambda each: jnp.sum(each, axis=0), of_chunks)
