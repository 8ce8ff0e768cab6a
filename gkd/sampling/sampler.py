"""Draws target sequences from a model: one prefill, one loop, early exit.

The draws of a row depend on (caller's key, global example id, position) only,
so a row gets the same sample alone, in any batch and in any order; if it occurs
again in a batch, another, see `keys.per_row`. The forward pass is in inference
mode. Not jitted here, see `generate.py`; two models that draw together are in
`two_models.py`, beam search is in `beam_search.py`.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from gkd import blocks
from gkd import keys
from gkd import masks
from gkd.sampling import filters
from gkd.types import Array
from gkd.types import Cache
from gkd.types import Key
from gkd.types import LanguageModel
from gkd.types import Params


@flax.struct.dataclass
class Samples:
  """Sequences that were generated for one batch of prompts.

  The leading axes are [B], or [B, N] for N sequences of each prompt, the best
  first. Filler rows, and slots that a search could not fill, have length 0.

  Attributes:
    tokens: [..., T] int32, EOS included, 0 after it.
    weights: [..., T] float32, 1 up to and including EOS, 0 after it.
    lengths: [...] int32, number of tokens, EOS included.
    truncated: [...] bool, no EOS within T; false where the length is 0.
    log_probs: of samples, [..., T] float32: log-probability of each token under
      the distribution that it was drawn from (temperature and filters applied);
      under the model's own when greedy; 0 where the weight is 0. NaN if the
      model's logits were not finite.
    scores: of a search, [...] float32: what it ranks by, see `beam_search`;
      −inf in an empty slot, NaN if the model's logits were not finite.
    redrawn: of `two_models.Interleaved`, [..., T] bool: the teacher drew it.
  """

  tokens: Array
  weights: Array
  lengths: Array
  truncated: Array
  log_probs: Array | None = None
  scores: Array | None = None
  redrawn: Array | None = None

  @property
  def best(self) -> "Samples":
    """The first sequence of each prompt, without the axis N."""
    return jax.tree.map(lambda array: array[:, 0], self)

  @property
  def is_finite(self) -> Array:
    """[] bool, whether the model's logits were finite."""
    if self.log_probs is None:
      return ~jnp.any(jnp.isnan(self.scores))
    return jnp.all(jnp.isfinite(self.log_probs))


class _State(NamedTuple):
  """What the loop carries from one position to the next."""

  position: Array  # [] int32, the position to be filled next
  cache: Cache
  last: Array  # [B] int32, the tokens just chosen
  finished: Array  # [B] bool
  tokens: Array  # [B, T] int32
  weights: Array  # [B, T] float32
  records: Mapping[str, Array]  # [B, T], further fields of `Samples`


# Logits [B, V] (of a pair of models a pair) and `uniforms` of this position to
# tokens [B] int32 and what is recorded of them, [B], by the field of `Samples`.
Draw = Callable[[Any, Any], tuple[Array, Mapping[str, Array]]]


def sample(
  model: LanguageModel,
  params: Params,
  inputs: Array,
  input_mask: Array,
  example_ids: Array,
  key: Key,
  *,
  temperature: float | Array = 1.0,
  top_k: int | Array = 0,
  top_p: float | Array = 1.0,
  forbidden_ids: Sequence[int],
  **limits,
) -> Samples:
  """Draws one target sequence for each prompt: `Samples` [B, T], no gradient.

  Args:
    model: as `params`, prompts, key and ids in `generate.generate`.
    temperature: see `SamplingParams`; traced, as top_k and top_p are.
    forbidden_ids: never drawn, beside ids from `model.vocabulary_size` up.
    **limits: max_length, eos_ids and horizon, see `draw_sequences`.
  """

  def draw(logits: Array, uniform: Array):
    logits = masks.mask_padded_ids(
      logits, model.vocabulary_size, forbidden_ids=forbidden_ids
    )
    tokens, log_probs = choose(logits, uniform, temperature, top_k, top_p)
    return tokens, {"log_probs": log_probs}

  prompts = inputs, input_mask, example_ids
  return draw_sequences(draw, model, params, *prompts, key, **limits)


def draw_sequences(
  draw: Draw,
  model: LanguageModel,
  params: Params,
  inputs: Array,
  input_mask: Array,
  example_ids: Array,
  key: Any,
  *,
  max_length: int,
  eos_ids: Sequence[int],
  horizon: Array | None = None,
) -> Samples:
  """The loop of all samplers: `Samples` [B, T], no gradient.

  Args:
    draw: chooses the tokens of a position.
    model: as `params`, prompts and ids in `generate.generate`.
    key: that of the draws, or a pytree of them, one for each stream.
    max_length: T, static.
    eos_ids: end a row.
    horizon: [] int32, traced, 1 or more: rows that have not ended after so many
      tokens are truncated there; None for T.
  """
  example_ids = jnp.asarray(example_ids)
  uniforms_TB2 = _uniforms_of_all(key, example_ids, max_length)
  limit = max_length if horizon is None else jnp.minimum(horizon, max_length)
  cache, logits = model.prefill(
    params,
    jax.tree.map(jnp.asarray, inputs),
    max_length,
    input_mask=input_mask,
  )

  def draw_at(position: int | Array, logits: Any):
    return draw(logits, jax.tree.map(lambda x: x[position], uniforms_TB2))

  def unfinished(state: _State) -> Array:
    return (state.position < limit) & ~jnp.all(state.finished)

  def step(state: _State) -> _State:
    cache, logits = model.decode(params, state.cache, state.last)
    drawn = draw_at(state.position, logits)
    return _append(state._replace(cache=cache), *drawn, eos_ids)

  # The first token is drawn before the loop: the model then never runs on the
  # last one, T − 1 decoding steps at most.
  tokens, records = draw_at(0, logits)
  start = _empty(cache, example_ids, max_length, records)
  start = _append(start, tokens, records, eos_ids)
  end = jax.lax.while_loop(unfinished, step, start)
  samples = Samples(
    tokens=end.tokens,
    weights=end.weights,
    lengths=jnp.sum(end.weights, axis=-1).astype(jnp.int32),
    truncated=~end.finished,
    **end.records,
  )
  return jax.lax.stop_gradient(samples)


def choose(
  logits: Array,
  uniform: Array,
  temperature: float | Array = 1.0,
  top_k: int | Array = 0,
  top_p: float | Array = 1.0,
) -> tuple[Array, Array]:
  """One token per row.

  Args:
    logits: [B, V], −inf where an id is not allowed.
    uniform: [B, 2], see `uniforms`.
    temperature: see `SamplingParams`, as for top_k and top_p; when it is 0
      (greedy), the largest logit is taken, the first of equals.

  Returns:
    tokens [B] int32 and log_probs [B] float32, see `Samples.log_probs`.
  """
  logits = filters.filter_logits(logits, temperature, top_k, top_p)
  parts = blocks.split(logits)
  block_mass = jnp.sum(jnp.exp(parts), axis=-1)
  tokens = jax.lax.cond(
    filters.is_greedy(temperature),
    lambda: blocks.argmax(parts),
    lambda: _draw(parts, block_mass, uniform),
  )
  chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
  return tokens, chosen - jnp.log(jnp.sum(block_mass, axis=-1))


def uniforms(row_keys: Key) -> Array:
  """[B, 2] random numbers in (0, 1), two for each of the keys [B]."""
  uniform = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(row_keys)
  # From multiples of 2⁻²³ in [0, 1) to the middles of their intervals: at 0
  # itself an id of probability 1e-38 would be taken if it came first.
  return uniform + 2.0**-24


def _uniforms_of_all(key: Any, example_ids: Array, max_length: int) -> Any:
  """[T, B, 2], the `uniforms` of all positions by one call, for each key."""
  positions = jnp.arange(max_length)

  def of_one(key):
    row_keys = keys.per_row(key, example_ids)
    return jax.vmap(lambda t: uniforms(keys.at_position(row_keys, t)))(
      positions
    )

  return jax.tree.map(of_one, key)


def _empty(
  cache: Cache,
  example_ids: Array,
  max_length: int,
  records: Mapping[str, Array],
) -> _State:
  """The state before the first token, with room for what is recorded."""
  shape = (example_ids.shape[0], max_length)
  return _State(
    position=jnp.int32(0),
    cache=cache,
    last=jnp.zeros(shape[:1], jnp.int32),
    finished=example_ids < 0,
    tokens=jnp.zeros(shape, jnp.int32),
    weights=jnp.zeros(shape, jnp.float32),
    records=jax.tree.map(lambda x: jnp.zeros(shape, x.dtype), records),
  )


def _append(
  state: _State,
  tokens: Array,
  records: Mapping[str, Array],
  eos_ids: Sequence[int],
) -> _State:
  """The state with one token [B] more in each unfinished row."""
  live = ~state.finished
  tokens = jnp.where(live, tokens, 0)

  def put(buffer, column):
    column = jnp.where(live, column, 0).astype(buffer.dtype)[:, None]
    return jax.lax.dynamic_update_slice_in_dim(
      buffer, column, state.position, axis=1
    )

  return _State(
    position=state.position + 1,
    cache=state.cache,
    last=tokens,
    finished=state.finished | masks.is_any(tokens, eos_ids),
    tokens=put(state.tokens, tokens),
    weights=put(state.weights, live),
    records=jax.tree.map(put, state.records, records),
  )


def _draw(parts: Array, block_mass: Array, uniform: Array) -> Array:
  """Draws ids [B] of logits [B, N, W] by inverse CDF: a block, then an id.

  P(id) = P(block) · P(id | block), with a uniform number for each factor. Sums
  over all ids are then plain reductions, cumulative sums run over a few hundred
  numbers instead of the whole vocabulary, and rare ids are drawn with a finer
  grain than the 2⁻²³ of one float32 uniform.
  """
  block = _inverse_cdf(block_mass, uniform[:, 0])
  inside = blocks.take(parts, block)
  column = _inverse_cdf(jnp.exp(inside), uniform[:, 1])
  return block * parts.shape[-1] + column


def _inverse_cdf(mass: Array, uniform: Array) -> Array:
  """Index [B] where the cumulated mass [B, N] first exceeds uniform · total.

  Safe whatever the rounding: an entry of mass 0 is never taken, even if a
  parallel cumulative sum is not monotone, and if rounding leaves nothing at the
  end, the last entry that has mass is taken.
  """
  cumulated = jnp.cumsum(mass, axis=-1)
  positive = mass > 0
  exceeds = cumulated > uniform[:, None] * cumulated[:, -1:]
  hit = positive & exceeds
  first = jnp.argmax(hit, axis=-1)
  last = mass.shape[-1] - 1 - jnp.argmax(positive[:, ::-1], axis=-1)
  index = jnp.where(jnp.any(hit, axis=-1), first, last)
  return index.astype(jnp.int32)
