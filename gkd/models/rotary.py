"""Rotary position embeddings (RoPE), as Hugging Face's models rotate.

  angles = positions[..., None] * frequencies(head_dim, theta, scaling)
  queries = rotate(queries, angles)

Papers: Su et al. 2021 (arXiv:2104.09864), Chen et al. 2023 (arXiv:2306.15595)
for "linear"; for "llama3" transformers' `modeling_rope_utils.py`.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from gkd.types import Array


def frequencies(head_dim: int, theta: float, scaling: Any) -> np.ndarray:
  """Radians a position of each pair of coordinates: theta^(−2i / K), scaled.

  Args:
    head_dim: K.
    theta: base.
    scaling: a `decoder_only.RopeScaling`, or None.

  Returns:
    [K/2] float32, as positions times frequencies are computed elsewhere.
  """
  frequency = theta ** (-np.arange(0, head_dim, 2) / head_dim)
  if scaling is None:
    return frequency.astype(np.float32)
  slow = frequency / scaling.factor
  if scaling.kind == "linear":
    return slow.astype(np.float32)
  turns = scaling.original_length * frequency / (2 * math.pi)
  low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
  share = np.clip((turns - low) / (high - low), 0, 1)
  return (share * frequency + (1 - share) * slow).astype(np.float32)


def rotate(x: Array, angles: Array) -> Array:
  """Turns pair (i, i + K/2) of [B, T, H, K] by angle i of [B, T, K/2].

  In float32; the result has the type of x.
  """
  cos, sin = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)
