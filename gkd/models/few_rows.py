"""Products of a few vectors with a large matrix, as a decoding step has them.

On a CPU they take the time in which the matrix is read. XLA's kernels read the
matrix on the left of a product as it lies, that on the right in strides, at two
thirds of the speed. So there a step takes W x for the rows of x, not x Wᵀ, and
a sampler transposes the kernels before its loop.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gkd.types import Array

TRANSPOSED = "transposed"  # beside "kernel"

# From about 100 rows on the kernels take the matrix on the right no slower.
_MOST = 64
# What stays in a core's cache is read fast enough from either side.
_LARGE = 2**17


def with_transposed(params: Any) -> Any:
  """The parameters, each kernel [K, N] with its transpose beside it."""

  def one(node):
    if not isinstance(node, dict):
      return node
    node = {name: one(child) for name, child in node.items()}
    if "kernel" in node and node["kernel"].size >= _LARGE:
      node[TRANSPOSED] = _laid_out(node["kernel"].T)
    return node

  return jax.tree.map(one, params, is_leaf=lambda x: isinstance(x, dict))


def dot(x: Array, kernel: Array, transposed: Array) -> Array:
  """Product x @ kernel, [..., K] · [K, N] -> [..., N], given [N, K] as well."""

  def on_cpu(x, kernel, transposed):
    del kernel
    # XLA would move the transpositions into the product, and the sides with it.
    columns = jax.lax.optimization_barrier(x.reshape(-1, x.shape[-1]).T)
    y = jax.lax.optimization_barrier(jnp.dot(transposed, columns))
    return _laid_out(y.T).reshape(*x.shape[:-1], -1)

  def elsewhere(x, kernel, transposed):
    del transposed
    return jnp.dot(x, kernel)

  if x.size > _MOST * x.shape[-1]:
    return jnp.dot(x, kernel)
  return jax.lax.platform_dependent(
    x, kernel, transposed, cpu=on_cpu, default=elsewhere
  )


def _laid_out(x: Array) -> Array:
  """The same, row by row in memory: XLA would hand on a transpose as it is."""
  return jax.lax.optimization_barrier(x.reshape(-1)).reshape(x.shape)
