"""Temperature, top-k and top-p, as values that may be traced.

The model's logits become the logits of the distribution that is drawn from:

  x = top_p(top_k(logits / temperature))

Neither filter sorts. The k-th largest logit and the nucleus threshold are found
by bisection on the order-preserving integer image of float32, one comparison
and one sum over the vocabulary a bit, and entries tied with the threshold stay,
as in T5X (`t5x/binary_search.py`). A filter that is off costs nothing, and a
new value never compiles anew.

  filters.apply(logits, Decoding(temperature=0.7, top_k=40))
"""

from collections.abc import Callable
import math
import numbers

import flax.struct
import jax
import jax.numpy as jnp

from gkd.types import Array
from gkd.types import UserError

# T5X takes anything colder as greedy (`t5x/decoding.py`, MIN_TEMPERATURE).
MIN_TEMPERATURE = 1e-4


@flax.struct.dataclass
class Decoding:
  """How tokens are chosen. All values are traced: none of them compiles.

  Attributes:
    temperature: 1 is the model's own distribution, 0 is greedy.
    top_k: keep the k largest logits and their ties; 0 keeps all.
    top_p: keep the smallest set of ids, ties included, whose probability is at
      least p, after temperature and top-k; 1 keeps all.
  """

  temperature: float | Array = 1.0
  top_k: int | Array = 0
  top_p: float | Array = 1.0

  def validate(self) -> None:
    """Checks a user's values (host numbers).

    Raises:
      UserError: a value of the wrong type or out of range.
    """
    for name in ("temperature", "top_k", "top_p"):
      value = getattr(self, name)
      wanted = numbers.Integral if name == "top_k" else numbers.Real
      if isinstance(value, bool) or not isinstance(value, wanted):
        raise UserError(
          f"decoding {name} is {value!r}; expected"
          f" {'an integer' if name == 'top_k' else 'a number'}"
        )
    cold = not MIN_TEMPERATURE <= self.temperature < math.inf
    if cold and self.temperature != 0:
      raise UserError(
        f"decoding temperature is {self.temperature}; expected 0 (greedy) or a"
        f" finite number of at least {MIN_TEMPERATURE}"
      )
    if self.top_k < 0:
      raise UserError(
        f"decoding top_k is {self.top_k}; expected a positive number of ids, or"
        " 0 to keep all"
      )
    if not 0 < self.top_p <= 1:
      raise UserError(
        f"decoding top_p is {self.top_p}; expected a probability above 0, or 1"
        " to keep all"
      )

  @property
  def words(self) -> str:
    """One phrase for the start-up print (host numbers)."""
    if self.temperature == 0:
      return "greedily"
    words = f"at temperature {self.temperature:g}"
    if self.top_k:
      words += f", top-k {self.top_k}"
    if self.top_p < 1:
      words += f", top-p {self.top_p:g}"
    return words

  @property
  def label(self) -> str:
    """What tells its metrics from those of other ways; none when greedy."""
    return f"t{self.temperature:g}" if self.temperature else ""

  @property
  def is_random(self) -> bool:
    """Whether a second answer to a prompt can differ from the first."""
    return self.temperature != 0


def is_greedy(decoding: Decoding) -> Array:
  """Scalar bool: the largest logit is taken, filters do not matter."""
  return jnp.asarray(decoding.temperature, jnp.float32) < MIN_TEMPERATURE


def apply(logits: Array, decoding: Decoding) -> Array:
  """Logits of the distribution to draw from; the largest is 0.

  Args:
    logits: [..., V], −inf where an id is not allowed.
    decoding: temperature and filters. When greedy, the model's own distribution
      is returned: temperature 1, no filter.

  Returns:
    [..., V] float32, −inf where an id cannot be drawn; the largest is 0 (up to
    rounding, if XLA fuses this into the caller).
  """
  greedy = is_greedy(decoding)
  logits = logits.astype(jnp.float32)
  # The maximum goes first: a small temperature must not overflow.
  logits -= jnp.max(logits, axis=-1, keepdims=True)
  temperature = jnp.asarray(decoding.temperature, jnp.float32)
  logits /= jnp.where(greedy, 1.0, temperature)
  top_k = jnp.asarray(decoding.top_k, jnp.int32)
  top_p = jnp.asarray(decoding.top_p, jnp.float32)
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

  Args:
    predicate: float32 `shape` -> bool `shape`; true up to some number, false
      above it and for NaN.
    shape: how many searches to run side by side.

  Returns:
    float32 `shape`; −inf where the predicate never holds.
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
