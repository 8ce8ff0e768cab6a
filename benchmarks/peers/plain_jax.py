"""A supervised step of T5 in JAX and optax alone, turn by turn: see `t5.py`.

What one would write by hand for a single device: a dict of float32 arrays, the
forward pass as functions, cross-entropy, AdamW, one jitted and donated step
that returns the loss. Neither flax nor anything of `gkd` is in the step; names
of weights are T5X's.
"""

import argparse
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.peers import turns
from benchmarks.peers import work
from gkd import host_memory

_OPTIMIZER = optax.adamw(work.LEARNING_RATE, weight_decay=0.0)


class Sizes(NamedTuple):
  """What shapes of weights do not say."""

  heads: int
  encoder: int  # layers
  decoder: int


def norm(x, scale):
  mean_square = jnp.mean(x**2, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(mean_square + 1e-6) * scale


def attention(w, heads, name, x, memory, bias):
  """From x [B, T, D] to memory [B, S, D], with a bias [B|1, H|1, T, S]."""

  def project(y, projection):
    kernel = w[f"{name}/{projection}/kernel"]
    return (y @ kernel).reshape(*y.shape[:2], heads, -1)

  q = project(x, "query")
  k, v = project(memory, "key"), project(memory, "value")
  scores = jnp.einsum("bthk,bshk->bhts", q, k) + bias
  mixed = jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores), v)
  return mixed.reshape(*x.shape[:2], -1) @ w[f"{name}/out/kernel"]


def mlp(w, name, x):
  """T5 1.0's or T5 1.1's."""
  if f"{name}/wi/kernel" in w:
    hidden = jax.nn.relu(x @ w[f"{name}/wi/kernel"])
  else:
    hidden = jax.nn.gelu(x @ w[f"{name}/wi_0/kernel"], approximate=True)
    hidden *= x @ w[f"{name}/wi_1/kernel"]
  return hidden @ w[f"{name}/wo/kernel"]


def buckets(length: int, bidirectional: bool) -> np.ndarray:
  """[T, T] bucket numbers of T5's relative positions, 32 up to distance 128."""
  distance = np.arange(length)[:, None] - np.arange(length)
  num, offset = 32, 0
  if bidirectional:
    num, offset, distance = 16, 16 * (distance < 0), abs(distance)
  distance, exact = np.maximum(distance, 0), num // 2
  # So that boundaries fall into the upper bucket, as in T5.
  ratio = np.maximum(distance, 1) / exact + np.finfo(np.float32).eps
  large = exact + np.log(ratio) / np.log(128 / exact) * (num - exact)
  large = np.minimum(large.astype(int), num - 1)
  return offset + np.where(distance < exact, distance, large)


def position_bias(w, stack: str, length: int) -> jax.Array:
  """[1, H, T, T]."""
  table = w[f"{stack}/relpos_bias/rel_embedding"]
  one_hot = jax.nn.one_hot(buckets(length, stack == "encoder"), table.shape[1])
  return jnp.einsum("hn,tsn->hts", table, one_hot)[None]


def as_bias(mask: jax.Array) -> jax.Array:
  return jnp.where(mask, 0.0, -1e10)


def logits_of(w, sizes, inputs, mask, targets):
  """[B, T, V] of inputs [B, I], their mask and targets [B, T]."""
  table = w["token_embedder/embedding"]
  attend = functools.partial(attention, w, sizes.heads)
  to_inputs = as_bias(mask[:, None, None, :])
  x = table[inputs]
  bias = position_bias(w, "encoder", inputs.shape[1]) + to_inputs
  for i in range(sizes.encoder):
    name = f"encoder/layers_{i}"
    h = norm(x, w[f"{name}/pre_attention_layer_norm/scale"])
    x += attend(f"{name}/attention", h, h, bias)
    h = norm(x, w[f"{name}/pre_mlp_layer_norm/scale"])
    x += mlp(w, f"{name}/mlp", h)
  memory = norm(x, w["encoder/encoder_norm/scale"])

  length = targets.shape[1]
  y = table[jnp.pad(targets[:, :-1], ((0, 0), (1, 0)))]
  bias = position_bias(w, "decoder", length)
  bias += as_bias(np.tril(np.ones((length, length), bool)))
  for i in range(sizes.decoder):
    name = f"decoder/layers_{i}"
    h = norm(y, w[f"{name}/pre_self_attention_layer_norm/scale"])
    y += attend(f"{name}/self_attention", h, h, bias)
    h = norm(y, w[f"{name}/pre_cross_attention_layer_norm/scale"])
    y += attend(f"{name}/encoder_decoder_attention", h, memory, to_inputs)
    h = norm(y, w[f"{name}/pre_mlp_layer_norm/scale"])
    y += mlp(w, f"{name}/mlp", h)
  y = norm(y, w["decoder/decoder_norm/scale"])
  if "decoder/logits_dense/kernel" in w:
    return y @ w["decoder/logits_dense/kernel"]
  return (y / np.sqrt(table.shape[1])) @ table.T


def loss_of(w, sizes, inputs, mask, targets, weights):
  """Mean cross-entropy of the targets that count."""
  logits = logits_of(w, sizes, inputs, mask, targets)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
  return jnp.sum(losses * weights) / jnp.sum(weights)


@functools.partial(jax.jit, static_argnames="sizes", donate_argnums=(0, 1))
def step(w, slots, sizes, *batch):
  loss, gradient = jax.value_and_grad(loss_of)(w, sizes, *batch)
  updates, slots = _OPTIMIZER.update(gradient, slots, w)
  return optax.apply_updates(w, updates), slots, loss


class Steps:
  """Weights, slots and batch."""

  def __init__(self, args: argparse.Namespace):
    config = work.config(args.size)
    self.sizes = Sizes(
      config.num_heads, config.num_encoder_layers, config.num_decoder_layers
    )
    self.weights = jax.tree.map(jnp.array, work.weights(args.size, 0))
    self.slots = _OPTIMIZER.init(self.weights)
    inputs, targets = work.ids(args)
    mask, ones = np.ones(inputs.shape, bool), np.ones(targets.shape, np.float32)
    self.batch = jax.device_put((inputs, mask, targets, ones))

  def supervised(self) -> dict[str, Any]:
    start = turns.clocks()
    self.weights, self.slots, loss = jax.block_until_ready(
      step(self.weights, self.slots, self.sizes, *self.batch)
    )
    loss = float(loss)
    return {"step": turns.since(start), "loss": loss}


def main() -> None:
  """Takes the step that each turn asks for."""
  host_memory.keep_freed()  # as `gkd` has it
  turns.serve(Steps)


if __name__ == "__main__":
  main()
