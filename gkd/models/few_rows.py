"""Products of a few vectors with a large matrix, as a decoding step has them.

They take the time in which the matrix is read. On a CPU, XLA's kernels read the
matrix on the left of a product as it lies, that on the right in strides, at two
thirds of the speed. So there a step takes W x for the rows of x, not x Wᵀ, and
a sampler transposes the kernels before its loop. Or it rounds the matrices to
bfloat16, half of what there is to read; sums remain in float32.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gkd.types import Array

# Beside "kernel", and the second beside "embedding" too.
TRANSPOSED = "transposed"
ROUNDED = "rounded"

# From about 100 rows on the kernels take the matrix on the right no slower.
_MOST = 64
# What stays in a core's cache is read fast enough from either side.
_LARGE = 2**17


def prepared(params: Any, dtype: str | None) -> Any:
  """The parameters, with what products read beside each kernel [K, N].

  Args:
    params: arrays by name, or a tuple of such.
    dtype: kernels and tables of embeddings are rounded to; None for transposes
      of large kernels.
  """

  def one(node):
    if not isinstance(node, dict):
      return node
    node = {name: one(child) for name, child in node.items()}
    kernel = node.get("kernel")
    if dtype is not None:
      for name in node.keys() & {"kernel", "embedding"}:
        node[ROUNDED] = node[name].astype(dtype)
    elif kernel is not None and kernel.size >= _LARGE:
      node[TRANSPOSED] = _laid_out(kernel.T)
    return node

  return jax.tree.map(one, params, is_leaf=lambda x: isinstance(x, dict))


def dot(x: Array, kernel: Array, transposed: Array) -> Array:
  """Product x @ kernel, [..., K] · [K, N] -> [..., N], given [N, K] as well.

  Of the type of x; x is rounded to that of the matrix, sums are in float32.
  """

  def on_cpu(x, kernel, transposed):
    del kernel
    # XLA would move the transpositions into the product, and the sides with it.
    columns = x.reshape(-1, x.shape[-1]).T.astype(transposed.dtype)
    columns = jax.lax.optimization_barrier(columns)
    y = jnp.dot(transposed, columns, preferred_element_type=jnp.float32)
    y = jax.lax.optimization_barrier(y.astype(x.dtype))
    return _laid_out(y.T).reshape(*x.shape[:-1], -1)

  def elsewhere(x, kernel, transposed):
    del transposed
    return rounded_dot(x, kernel)

  if x.size > _MOST * x.shape[-1]:
    return elsewhere(x, kernel, transposed)
  return jax.lax.platform_dependent(
    x, kernel, transposed, cpu=on_cpu, default=elsewhere
  )


def rounded_dot(x: Array, kernel: Array) -> Array:
  """Product x @ kernel of the type of x, which is rounded to the kernel's."""
  rounded = x.astype(kernel.dtype)
  y = jnp.dot(rounded, kernel, preferred_element_type=jnp.float32)
  return y.astype(x.dtype)


def _laid_out(x: Array) -> Array:
  """The same, row by row in memory: XLA would hand on a transpose as it is."""
  return jax.lax.optimization_barrier(x.reshape(-1)).reshape(x.shape)
