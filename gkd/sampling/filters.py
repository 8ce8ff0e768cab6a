"""Temperature, top-k and top-p on logits, with values that may be traced.

  x = top_p(top_k(logits / temperature))

Neither filter sorts. The k-th largest logit and the nucleus threshold are found
by bisection on the order-preserving integer image of float32, one comparison
and one sum over the vocabulary a bit, and entries tied with the threshold stay,
as in T5X (`t5x/binary_search.py`). A filter that is off costs nothing, and a
new value does not recompile.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gkd.types import Array

# T5X treats a lower temperature as greedy (`t5x/decoding.py`, MIN_TEMPERATURE).
MIN_TEMPERATURE = 1e-4


def is_greedy(temperature: float | Array) -> Array:
  """Scalar bool: the largest logit is taken, filters do not matter."""
  return jnp.asarray(temperature, jnp.float32) < MIN_TEMPERATURE


def filter_logits(
  logits: Array,
  temperature: float | Array,
  top_k: int | Array,
  top_p: float | Array,
) -> Array:
  """Logits of the distribution to draw from; the largest is 0.

  Args:
    logits: [..., V], −inf where an id is not allowed.
    temperature: see `SamplingParams`. When it is 0 (greedy), the model's own
      distribution is returned: temperature 1, no filter.
    top_k: number of ids to keep, 0 for all.
    top_p: probability to keep, 1 for all.

  Returns:
    [..., V] float32, −inf where an id cannot be drawn; the largest is 0 (up to
    rounding, if XLA fuses this into the caller).
  """
  greedy = is_greedy(temperature)
  logits = logits.astype(jnp.float32)
  # The maximum goes first: a small temperature must not overflow.
  logits -= jnp.max(logits, axis=-1, keepdims=True)
  temperature = jnp.asarray(temperature, jnp.float32)
  logits /= jnp.where(greedy, 1.0, temperature)
  top_k = jnp.asarray(top_k, jnp.int32)
  top_p = jnp.asarray(top_p, jnp.float32)
  logits = jax.lax.cond(
    (top_k > 0) & ~greedy,
    keep_top_k,
    lambda logits, k: logits,
    logits,
    top_k,
  )
  return jax.lax.cond(
    (top_p < 1) & ~greedy,
    keep_top_p,
    lambda logits, p: logits,
    logits,
    top_p,
  )


def keep_top_k(logits: Array, k: int | Array) -> Array:
  """−inf for all [..., V] float32 logits below the k-th largest; ties stay.

  A k above V keeps all.
  """
  k = jnp.minimum(jnp.asarray(k, jnp.int32), logits.shape[-1])

  def enough(threshold):
    kept = logits >= threshold[..., None]
    return jnp.sum(kept, axis=-1, dtype=jnp.int32) >= k

  threshold = _largest_float(enough, logits.shape[:-1])
  return jnp.where(logits >= threshold[..., None], logits, -jnp.inf)


def keep_top_p(logits: Array, p: float | Array) -> Array:
  """−inf outside the smallest set of probability ≥ p; ties stay.

  Args:
    logits: [..., V] float32.
    p: probability in (0, 1].

  Returns:
    [..., V] logits; the largest always stays.
  """
  largest = jnp.max(logits, axis=-1)
  mass = jnp.exp(logits - largest[..., None])
  goal = jnp.asarray(p, jnp.float32) * jnp.sum(mass, axis=-1)

  # The search is over logits, not over masses: computed twice, a mass may be
  # rounded in two ways, and the id on the threshold could then drop out.
  def enough(threshold):
    kept = jnp.where(logits >= threshold[..., None], mass, 0.0)
    return (threshold <= largest) & (jnp.sum(kept, axis=-1) >= goal)

  threshold = _largest_float(enough, logits.shape[:-1])
  return jnp.where(logits >= threshold[..., None], logits, -jnp.inf)


def _largest_float(
  predicate: Callable[[Array], Array], shape: tuple[int, ...]
) -> Array:
  """Largest float32 for which a predicate holds, one per entry of `shape`.

  The predicate is true up to some number, false above it and for NaN; −inf
  where it never holds.
  """

  def one_bit(i, image):
    candidate = image | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
    return jnp.where(predicate(_from_image(candidate)), candidate, image)

  image = jax.lax.fori_loop(0, 32, one_bit, jnp.zeros(shape, jnp.uint32))
  return _from_image(image)


def _from_image(image: Array) -> Array:
  """The float32 whose order-preserving uint32 image this is.

  Images of positive numbers are their bits with the sign bit set, those of
  negative numbers all bits flipped. Images below that of −inf would be NaN.
  """
  image = jnp.maximum(image, jnp.uint32(0x007FFFFF))  # the image of −inf
  sign = jnp.uint32(1 << 31)
  bits = jnp.where(image >= sign, image ^ sign, ~image)
  return jax.lax.bitcast_convert_type(bits, jnp.float32)
