"""Beam search with the rules of T5X: the best sequences of each prompt.

A beam is a sequence with its log-probability. At each position the K live beams
of a prompt are continued by every id; of the 2K best continuations those that
end go among the K best finished ones, by score, and the K best others live on,
by log-probability:

  score = log p(y|x) / ((5 + length) / 6)^alpha      (Wu et al. 2016, Eq. 14)

A prompt is done when K beams are finished and no live one can come among them,
even if it cost nothing more up to the longest length. If a beam of it finished,
live ones are dropped; if none did, they are the answer.

Rows are searched independently: a row is answered alike in any batch. Not
jitted here: callers jit with `model`, `num_beams` and `max_length` static.

`transformers` differs: it divides by length^length_penalty, takes only those of
the K best continuations that end (not of the 2K), stops by another bound, and
ranks live beams among the finished ones at the longest length.

  beams = beam_search(model, params, inputs, rows, num_beams=4, alpha=0.6,
                      max_length=32)
  beams.best.tokens   # [B, T]
"""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from gkd import masks
from gkd.sampling import blocks
from gkd.sampling import strategies
from gkd.types import EOS_ID
from gkd.types import PAD_ID
from gkd.types import Array
from gkd.types import Cache
from gkd.types import LanguageModel
from gkd.types import Params


@flax.struct.dataclass
class Beams:
  """The K best sequences of each prompt, the best first.

  A row of which fewer than K beams finished has empty slots at its end: length
  0, no tokens, score −inf (T5X: −1e7). Filler rows have nothing else.

  Attributes:
    tokens: [B, K, T] int32, EOS included, 0 after it.
    weights: [B, K, T] float32, 1 up to and including EOS, 0 after it.
    lengths: [B, K] int32, number of tokens, EOS included; 0 in an empty slot.
    truncated: [B, K] bool, no EOS within T. All of a row or none: live beams
      are the answer where nothing finished.
    scores: [B, K] float32, see above; of truncated ones the log-probability
      itself, as T5X has it. NaN if the model's logits were not finite.
  """

  tokens: Array
  weights: Array
  lengths: Array
  truncated: Array
  scores: Array

  @property
  def best(self) -> "Beams":
    """The first of each row, without the axis K."""
    return jax.tree.map(lambda array: array[:, 0], self)


class _State(NamedTuple):
  """What the loop carries; N beams live: 1 at first, K after the first token.

  A log-probability or a score of −inf marks a place without a beam; a row that
  is done and a filler row have no live beams.
  """

  position: Array  # [] int32, the position to be filled next
  live: Array  # [B, N, T] int32 tokens, best first
  log_probs: Array  # [B, N] float32 of the live beams
  finished: Array  # [B, K, T] int32 tokens, best first
  scores: Array  # [B, K] float32 of the finished beams
  sound: Array  # [B] bool, the logits were finite so far


def beam_search(
  model: LanguageModel,
  params: Params,
  inputs: Array,
  rows: Array,
  *,
  num_beams: int,
  alpha: float | Array,
  max_length: int,
  eos_id: int | Array = EOS_ID,
  mask_ids: bool = True,
) -> Beams:
  """Searches the best target sequences of each prompt.

  Args:
    model: who answers.
    params: its parameters.
    inputs: [B, I] int32 prompts, right-padded with 0.
    rows: [B] int32 global row ids; rows of −1 are fillers: they get nothing and
      do not keep the loop running.
    num_beams: K, static.
    alpha: exponent of the length penalty, 0 or more; traced.
    max_length: T, static.
    eos_id: the id that ends a sequence.
    mask_ids: never take id 0 nor the padded ids from `model.vocabulary_size`
      up. T5X masks nothing; False is for comparisons with it.

  Returns:
    The `Beams`, without gradient.

  Raises:
    UserError: there are fewer ids than beams.
  """
  inputs = jnp.asarray(inputs)
  cache, logits = model.prefill(params, inputs, max_length)
  num_ids = model.vocabulary_size - 1 if mask_ids else logits.shape[-1]
  strategies.check_beams(num_beams, num_ids)

  def advance(state: _State, logits: Array) -> tuple[_State, Array]:
    if mask_ids:
      logits = masks.mask_padded_ids(
        logits, model.vocabulary_size, forbid_pad=True
      )
    return _advance(state, logits, num_beams, alpha, eos_id)

  def unfinished(carried: tuple[_State, Cache]) -> Array:
    state, _ = carried
    return (state.position < max_length) & jnp.any(state.log_probs > -jnp.inf)

  def step(carried: tuple[_State, Cache]) -> tuple[_State, Cache]:
    state, cache = carried
    last = jax.lax.dynamic_index_in_dim(
      state.live, state.position - 1, axis=2, keepdims=False
    )
    fed, logits = model.decode(params, cache, last.reshape(-1))
    state, parents = advance(state, logits.reshape(*last.shape, -1))
    return state, _follow(cache, fed, parents)

  # The first token comes before the loop: one beam lives, on which the model
  # ran once for each prompt; then its cache is repeated for each beam.
  start = _empty(jnp.asarray(rows), num_beams, max_length)
  state, _ = advance(start, logits[:, None])
  cache = _repeated(cache, num_beams)
  end, _ = jax.lax.while_loop(unfinished, step, (state, cache))
  return jax.lax.stop_gradient(_result(end, eos_id))


def _empty(rows: Array, num_beams: int, max_length: int) -> _State:
  """The state before the first token."""
  num_rows = rows.shape[0]
  return _State(
    position=jnp.int32(0),
    live=jnp.full((num_rows, 1, max_length), PAD_ID, jnp.int32),
    log_probs=jnp.where(rows >= 0, 0.0, -jnp.inf)[:, None],
    finished=jnp.full((num_rows, num_beams, max_length), PAD_ID, jnp.int32),
    scores=jnp.full((num_rows, num_beams), -jnp.inf),
    sound=jnp.ones((num_rows,), bool),
  )


def _advance(
  state: _State,
  logits: Array,
  num_beams: int,
  alpha: float | Array,
  eos_id: int | Array,
) -> tuple[_State, Array]:
  """All beams one token longer.

  Args:
    state: with N live beams.
    logits: [B, N, V] of their next tokens, −inf where an id is not allowed.
    num_beams: K.
    alpha: exponent of the length penalty.
    eos_id: the id that ends a sequence.

  Returns:
    The state with K live beams, and parents [B, K] int32: which of the N beams
    each of them continues.
  """
  alive = state.log_probs > -jnp.inf
  normaliser = jax.nn.logsumexp(logits, axis=-1)
  sound = state.sound & jnp.all(jnp.isfinite(normaliser) | ~alive, axis=-1)
  # The 2K best of all are among the 2K best of each. With 2K of them, K go on
  # even if K end at once.
  best, ids = blocks.top_k(logits, 2 * num_beams)
  best += (state.log_probs - normaliser)[..., None]
  best = jnp.where(alive[..., None] & sound[:, None, None], best, -jnp.inf)
  log_probs, places = jax.lax.top_k(_flat(best), 2 * num_beams)
  parents = places // best.shape[-1]
  ids = jnp.take_along_axis(_flat(ids), places, axis=1)
  tokens = jax.lax.dynamic_update_slice_in_dim(
    _take(state.live, parents), ids[..., None], state.position, axis=2
  )
  ends = ids == eos_id

  length = state.position + 1
  new_scores = log_probs / _penalty(length, alpha)
  new_scores = jnp.where(ends, new_scores, -jnp.inf)
  scores = jnp.concatenate([state.scores, new_scores], axis=1)
  scores, kept = jax.lax.top_k(scores, num_beams)
  finished = _take(jnp.concatenate([state.finished, tokens], axis=1), kept)

  log_probs, kept = jax.lax.top_k(
    jnp.where(ends, -jnp.inf, log_probs), num_beams
  )
  # T5X's bound has one token more than fit; it only stops later.
  bound = log_probs[:, 0] / _penalty(tokens.shape[-1] + 1, alpha)
  done = jnp.min(scores, axis=1) > bound
  state = _State(
    position=length,
    live=_take(tokens, kept),
    log_probs=jnp.where(done[:, None], -jnp.inf, log_probs),
    finished=finished,
    scores=scores,
    sound=sound,
  )
  return state, jnp.take_along_axis(parents, kept, axis=1)


def _penalty(length: int | Array, alpha: float | Array) -> Array:
  """What the log-probability of that many tokens, EOS included, is divided by.

  Wu et al. 2016 (arXiv:1609.08144), Eq. 14.
  """
  return jnp.power((5.0 + length) / 6.0, alpha)


def _result(end: _State, eos_id: int | Array) -> Beams:
  """Finished beams; live ones where a row has none."""
  any_finished = end.scores[:, :1] > -jnp.inf
  tokens = jnp.where(any_finished[..., None], end.finished, end.live)
  scores = jnp.where(any_finished, end.scores, end.log_probs)
  occupied = scores > -jnp.inf
  max_length = tokens.shape[-1]
  ended = jnp.argmax(tokens == eos_id, axis=-1).astype(jnp.int32) + 1
  lengths = jnp.where(any_finished, ended, max_length)
  lengths = jnp.where(occupied, lengths, 0)
  counts = jnp.arange(max_length) < lengths[..., None]
  return Beams(
    tokens=jnp.where(counts, tokens, PAD_ID),
    weights=counts.astype(jnp.float32),
    lengths=lengths,
    truncated=occupied & ~any_finished,
    scores=jnp.where(end.sound[:, None], scores, jnp.nan),
  )


def _repeated(cache: Cache, num_beams: int) -> Cache:
  """[B, …] -> [B·K, …]: every beam starts from its prompt."""
  return jax.tree.map(
    lambda array: jnp.repeat(array, num_beams, axis=0) if array.ndim else array,
    cache,
  )


def _follow(before: Cache, after: Cache, parents: Array) -> Cache:
  """The cache of beams that continue these parents [B, K].

  Args:
    before: what `decode` was given.
    after: what it returned. An array that it handed on as it is does not depend
      on the tokens, so it is the same for all beams of a prompt and stays: for
      T5 the projected encoder output, which is most of the cache.
    parents: beams of the same row.
  """

  def follow(old, new):
    if new is old or not new.ndim:
      return new
    beams = new.reshape(*parents.shape, *new.shape[1:])
    return _take(beams, parents).reshape(new.shape)

  return jax.tree.map(follow, before, after)


def _take(beams: Array, chosen: Array) -> Array:
  """[B, N, …] and places [B, K] -> [B, K, …], row by row."""
  return jax.vmap(lambda row, places: row[places])(beams, chosen)


def _flat(array: Array) -> Array:
  """[B, N, M] -> [B, N·M]."""
  return array.reshape(array.shape[0], -1)
