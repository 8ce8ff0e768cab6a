"""The only place that shifts tokens, masks ids or divides by a mask.

Peers got these wrong more often than anything else: a normaliser that depends
on padding or on how a batch was split, an EOS that was never trained, padded
vocabulary rows that were sampled. So there is one copy of each.
"""

from collections.abc import Sequence
from typing import Literal
from typing import get_args

import jax.numpy as jnp
import numpy as np

from gkd.types import Array

Reduction = Literal["sequence", "token", "sum"]


def shift_right(tokens: Array, start_id: int) -> Array:
  """Decoder inputs [..., T]: `start_id`, then targets [..., T] but the last."""
  padding = [(0, 0)] * (tokens.ndim - 1) + [(1, 0)]
  return jnp.pad(tokens[..., :-1], padding, constant_values=start_id)


def is_any(tokens: Array, ids: Sequence[int]) -> Array:
  """Bool array in the shape of `tokens`: whether a token is one of `ids`."""
  is_one = jnp.zeros(tokens.shape, bool)
  for index in ids:
    is_one |= tokens == index
  return is_one


def mask_padded_ids(
  logits: Array,
  vocabulary_size: int,
  *,
  width: int | None = None,
  forbidden_ids: Sequence[int] = (),
) -> Array:
  """Sets the logits of ids that no tokenizer can produce to −inf.

  Args:
    logits: [..., V] raw logits.
    vocabulary_size: number of real ids; ids from here up are padding rows.
    width: cut to this many columns first, so that a teacher and a student whose
      tables are padded differently can be compared; at least vocabulary_size.
    forbidden_ids: also mask these, for sampling: padding, start and control.

  Returns:
    [..., width or V] logits.
  """
  if width is not None:
    assert width >= vocabulary_size, (width, vocabulary_size)
    logits = logits[..., :width]
  ids = np.arange(logits.shape[-1])  # a constant: Llama 3 forbids 254 ids
  allowed = (ids < vocabulary_size) & ~np.isin(ids, forbidden_ids)
  return jnp.where(allowed, logits, -jnp.inf)


def thirds(weights: Array) -> Array:
  """0, 1 or 2 [B, T] int32: in which third of its sequence a token stands."""
  counts = weights > 0
  places = jnp.cumsum(counts, axis=-1) - 1
  lengths = jnp.sum(counts, axis=-1, keepdims=True)
  return jnp.clip(3 * places // jnp.maximum(lengths, 1), 0, 2)


def coefficients(
  weights: Array,
  reduction: Reduction,
  segments: Array | None = None,
) -> Array:
  """Per-token coefficients c [B, T] such that the loss is Σ c·value.

  They are computed once, on the whole global batch, before it is split into
  micro-batches or over devices: parts of the sum then add up exactly.

    sequence  mean over the tokens of each sequence, then mean over the
              sequences that have tokens (GKD, Eq. 2 and Algorithm 1)
    token     mean over all tokens of the batch
    sum       sum over all tokens (T5X's default)

  Args:
    weights: [B, T] float, 0 where a token does not count.
    reduction: which of the above.
    segments: optional [B, T] segment ids of a packed batch.

  Returns:
    [B, T] float32. All zero when nothing counts.

  Raises:
    ValueError: unknown reduction.
  """
  weights = weights.astype(jnp.float32)
  if reduction == "sum":
    return weights
  if reduction == "token":
    return weights / jnp.maximum(jnp.sum(weights), 1e-9)
  if reduction == "sequence":
    if segments is None:
      lengths = jnp.sum(weights, axis=-1, keepdims=True)
    else:
      same = segments[:, :, None] == segments[:, None, :]
      lengths = jnp.einsum("bts,bs->bt", same.astype(jnp.float32), weights)
    share = jnp.where(weights > 0, weights / jnp.maximum(lengths, 1e-9), 0.0)
    return share / jnp.maximum(jnp.sum(share), 1e-9)
  raise ValueError(
    f"unknown reduction {reduction!r}; expected one of {get_args(Reduction)}"
  )
