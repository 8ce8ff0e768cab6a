"""The only place that shifts tokens, masks ids or divides by a mask.

Peers got these wrong more often than anything else: a normaliser that depends
on padding or on how a batch was split, an EOS that was never trained, padded
vocabulary rows that were sampled. So there is one copy of each.
"""

from typing import Literal
from typing import get_args

import jax.numpy as jnp

from gkd.types import EOS_ID
from gkd.types import PAD_ID
from gkd.types import Array

Reduction = Literal["sequence", "token", "sum"]


def shift_right(tokens: Array) -> Array:
  """Decoder inputs [..., T]: targets [..., T] with 0 in front, last dropped."""
  return jnp.pad(tokens[..., :-1], [(0, 0)] * (tokens.ndim - 1) + [(1, 0)])


def mask_after_eos(tokens: Array, eos_id: int = EOS_ID) -> tuple[Array, Array]:
  """Keeps each row up to and including its first EOS.

  Args:
    tokens: [..., T] int ids.
    eos_id: the id that ends a sequence.

  Returns:
    tokens [..., T] with 0 after the first EOS, and float32 weights [..., T]
    that are 1 up to and including it. A row without EOS keeps everything.
  """
  is_eos = (tokens == eos_id).astype(jnp.int32)
  before = jnp.cumsum(is_eos, axis=-1) - is_eos
  keep = before == 0
  return jnp.where(keep, tokens, PAD_ID), keep.astype(jnp.float32)


def mask_padded_ids(
  logits: Array,
  vocabulary_size: int,
  *,
  width: int | None = None,
  forbid_pad: bool = False,
) -> Array:
  """Sets the logits of ids that no tokenizer can produce to −inf.

  Args:
    logits: [..., V] raw logits.
    vocabulary_size: number of real ids; ids from here up are padding rows.
    width: cut to this many columns first, so that a teacher and a student whose
      tables are padded differently can be compared; at least vocabulary_size.
    forbid_pad: also mask id 0, for sampling: 0 is never drawn.

  Returns:
    [..., width or V] logits.
  """
  if width is not None:
    assert width >= vocabulary_size, (width, vocabulary_size)
    logits = logits[..., :width]
  ids = jnp.arange(logits.shape[-1])
  allowed = ids < vocabulary_size
  if forbid_pad:
    allowed &= ids != PAD_ID
  return jnp.where(allowed, logits, -jnp.inf)


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
