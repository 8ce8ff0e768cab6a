"""Layers: RMS norm, projection, embedding and (gated) MLP.

One copy for all families. Parameters are float32 under T5X's names and are cast
to the compute dtype where they are used. Attention lives in `attention.py`.

Initialisers are those of T5X (`t5x/examples/t5/layers.py`): linen derives a
parameter's key from its path, so equal names also give equal initial values.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from gkd.logical_axes import constrain
from gkd.models import few_rows
from gkd.types import Array

Initializer = Callable[..., Array]

# T5's GELU is the tanh form, not the one with erf.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "gelu": lambda x: jax.nn.gelu(x, approximate=True),
  "linear": lambda x: x,
  "relu": jax.nn.relu,
  "silu": jax.nn.silu,
}

_FAN_IN_TRUNCATED = nn.initializers.variance_scaling(
  1.0, "fan_in", "truncated_normal"
)


def parameter(
  module: nn.Module, name: str, init: Initializer, shape: Sequence[int]
) -> Array:
  """A float32 parameter of a layer: `module.param` without its shape check.

  flax traces the initializer at each use of a parameter to compare shapes, a
  tenth of a run's start-up; shapes are compared when parameters are loaded.
  """
  if module.has_variable("params", name):
    return module.get_variable("params", name)
  return module.param(name, init, tuple(shape), jnp.float32)


class RMSNorm(nn.Module):
  """x / sqrt(mean(x²) + epsilon) · (scale + offset), in float32.

  Paper: Zhang and Sennrich 2019 (arXiv:1910.07467).
  """

  epsilon: float
  dtype: Any
  offset: float = 0.0

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] of any float dtype -> [..., D] in the compute dtype."""
    x = x.astype(jnp.float32)
    init = nn.initializers.constant(1.0 - self.offset)
    scale = parameter(self, "scale", init, x.shape[-1:])
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    y = x * jax.lax.rsqrt(mean_square + self.epsilon)
    scale = scale.astype(jnp.float32) + self.offset
    return (y * scale).astype(self.dtype)


class Dense(nn.Module):
  """x @ kernel (+ bias); the kernel is stored 2-D, as T5X stores it."""

  features: int
  dtype: Any
  kernel_init: Initializer = _FAN_IN_TRUNCATED
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] -> [..., features]."""
    shape = (x.shape[-1], self.features)
    kernel = parameter(self, "kernel", self.kernel_init, shape)
    # Of [B, T, D] XLA transposes what the gradient of a kernel is made of, here
    # and in `attend`.
    rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
    kernel = kernel.astype(self.dtype)
    if self.has_variable("params", few_rows.ROUNDED):
      rounded = self.get_variable("params", few_rows.ROUNDED)
      y = few_rows.rounded_dot(rows, rounded)
    elif self.has_variable("params", few_rows.TRANSPOSED):
      transposed = self.get_variable("params", few_rows.TRANSPOSED)
      y = few_rows.dot(rows, kernel, transposed.astype(self.dtype))
    else:
      y = jnp.dot(rows, kernel)
    y = y.reshape(*x.shape[:-1], self.features)
    if not self.use_bias:
      return y
    bias = parameter(self, "bias", nn.initializers.zeros, shape[1:])
    return y + bias.astype(self.dtype)


class Embedding(nn.Module):
  """A table of token vectors that can also serve as the output head."""

  vocab_size: int
  features: int
  dtype: Any
  stddev: float = 1.0

  def setup(self):
    shape = (self.vocab_size, self.features)
    init = nn.initializers.normal(self.stddev)
    self.embedding = parameter(self, "embedding", init, shape)

  def __call__(self, tokens: Array) -> Array:
    """[...] int ids -> [..., D]. An id outside the table gives NaN, loudly."""
    # Whole vectors: of parts of them XLA would replicate the batch.
    table = constrain(self.embedding, "vocab", "embed")
    vectors = jnp.take(table, tokens, axis=0, mode="fill", fill_value=jnp.nan)
    return vectors.astype(self.dtype)

  def attend(self, hidden: Array) -> Array:
    """[..., D] -> [..., V] float32: inner product with every token vector."""
    hidden = hidden.astype(jnp.float32)
    table = self.embedding.astype(jnp.float32)
    if hidden.ndim == 2:  # a decoding step
      if self.has_variable("params", few_rows.ROUNDED):
        table = self.get_variable("params", few_rows.ROUNDED)
      return few_rows.dot(hidden, table.T, table)
    rows = hidden.reshape(-1, hidden.shape[-1])
    return jnp.dot(rows, table.T).reshape(*hidden.shape[:-1], -1)


class MLP(nn.Module):
  """wo(dropout(Π_i activation_i(wi_i x))); one activation: `wi`, more: `wi_i`.

  ("relu",) is T5 1.0; ("gelu", "linear") is the gated GELU of T5 1.1
  (arXiv:2002.05202).
  """

  features: int
  mlp_dim: int
  activations: tuple[str, ...]
  dropout_rate: float
  dtype: Any

  @nn.compact
  def __call__(self, x: Array, deterministic: bool) -> Array:
    """[B, T, D] -> [B, T, D]."""
    hidden = 1.0
    for i, name in enumerate(self.activations):
      wi = "wi" if len(self.activations) == 1 else f"wi_{i}"
      hidden *= ACTIVATIONS[name](Dense(self.mlp_dim, self.dtype, name=wi)(x))
    hidden = dropout(self.dropout_rate)(hidden, deterministic)
    return Dense(self.features, self.dtype, name="wo")(hidden)


def soft_cap(x: Array, cap: float) -> Array:
  """Nearly x while it is small, never beyond the cap: cap · tanh(x / cap)."""
  return cap * jnp.tanh(x / cap)


def dropout(rate: float) -> nn.Dropout:
  """T5's dropout: one mask for all positions of a sequence [.., T, D]."""
  return nn.Dropout(rate, broadcast_dims=(-2,))
