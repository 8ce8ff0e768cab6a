"""Beam search with the rules of T5X: the best sequences of each prompt.

A beam is a sequence with its log-probability. At each position the K live beams
of a prompt are continued by every id. With E ids that end a sequence, of the
(1 + E)K best continuations those that end go among the K best finished ones, by
score, and the K best others live on, by log-probability:

  score = log p(y|x) / ((5 + length) / 6)^alpha      (Wu et al. 2016, Eq. 14)

A prompt is done when K beams are finished and no live one can come among them,
even if it cost nothing more up to the longest length. If a beam of it finished,
live ones are dropped; if none did, they are the answer.

Rows are searched independently: a row has the same result in any batch. Not
jitted here, see `generate.py`.

With one such id that is T5X's rule. `transformers` differs: it divides by
length^length_penalty, takes only those of the K best continuations that end
(not of the 2K), stops by another bound, and ranks live beams among the finished
ones at the longest length.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gkd import blocks
from gkd import masks
from gkd.sampling.sampler import Samples
from gkd.types import Array
from gkd.types import Cache
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import UserError


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
  input_mask: Array,
  example_ids: Array,
  *,
  num_beams: int,
  alpha: float | Array,
  max_length: int,
  eos_ids: Sequence[int],
  forbidden_ids: Sequence[int],
) -> Samples:
  """Searches the best target sequences of each prompt.

  Args:
    model: as `params`, prompts and ids in `generate.generate`.
    num_beams: K, static.
    alpha: exponent of the length penalty, 0 or more; traced.
    max_length: T, static.
    forbidden_ids: never taken, beside ids from `model.vocabulary_size` up.

  Returns:
    `Samples` [B, K, T], the best first, no gradient. A row of which fewer than
    K beams finished has empty slots at its end, with score −inf (T5X: −1e7).
    Where none finished, the live beams are the answer: all are truncated, and
    the score is the log-probability itself, as T5X has it.
  """
  check_num_beams(num_beams, model.vocabulary_size - len(forbidden_ids))
  cache, logits = model.prefill(
    params, jnp.asarray(inputs), max_length, input_mask=input_mask
  )

  def advance(state: _State, logits: Array) -> tuple[_State, Array]:
    logits = masks.mask_padded_ids(
      logits, model.vocabulary_size, forbidden_ids=forbidden_ids
    )
    return _advance(state, logits, num_beams, alpha, eos_ids)

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
  start = _empty(jnp.asarray(example_ids), num_beams, max_length)
  state, _ = advance(start, logits[:, None])
  cache = _repeated(cache, num_beams)
  end, _ = jax.lax.while_loop(unfinished, step, (state, cache))
  return jax.lax.stop_gradient(_result(end, eos_ids))


def check_num_beams(num_beams: int, num_ids: int) -> None:
  """Refuses more beams than first tokens: ids that are not masked."""
  if num_beams > num_ids:
    raise UserError(
      f"beam size is {num_beams}, but the model chooses among {num_ids} ids;"
      f" give at most {num_ids}"
    )


def _empty(example_ids: Array, num_beams: int, max_length: int) -> _State:
  """The state before the first token."""
  num_rows = example_ids.shape[0]
  return _State(
    position=jnp.int32(0),
    live=jnp.zeros((num_rows, 1, max_length), jnp.int32),
    log_probs=jnp.where(example_ids >= 0, 0.0, -jnp.inf)[:, None],
    finished=jnp.zeros((num_rows, num_beams, max_length), jnp.int32),
    scores=jnp.full((num_rows, num_beams), -jnp.inf),
    sound=jnp.ones((num_rows,), bool),
  )


def _advance(
  state: _State,
  logits: Array,
  num_beams: int,
  alpha: float | Array,
  eos_ids: Sequence[int],
) -> tuple[_State, Array]:
  """All beams one token longer, by logits [B, N, V], −inf where not allowed.

  Returns the state with K live beams, and parents [B, K] int32: which of the N
  beams each of them continues.
  """
  alive = state.log_probs > -jnp.inf
  normaliser = jax.nn.logsumexp(logits, axis=-1)
  sound = state.sound & jnp.all(jnp.isfinite(normaliser) | ~alive, axis=-1)
  # The best of all are among as many best of each. With 2K of them (one id that
  # ends), K go on even if K end at once.
  num_candidates = (1 + len(eos_ids)) * num_beams
  best, ids = blocks.top_k(logits, num_candidates)
  best += (state.log_probs - normaliser)[..., None]
  best = jnp.where(alive[..., None] & sound[:, None, None], best, -jnp.inf)
  log_probs, places = jax.lax.top_k(_flat(best), num_candidates)
  parents = places // best.shape[-1]
  ids = jnp.take_along_axis(_flat(ids), places, axis=1)
  tokens = jax.lax.dynamic_update_slice_in_dim(
    _take(state.live, parents), ids[..., None], state.position, axis=2
  )
  ends = masks.is_any(ids, eos_ids)

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


def _result(end: _State, eos_ids: Sequence[int]) -> Samples:
  """Finished beams; live ones where a row has none."""
  any_finished = end.scores[:, :1] > -jnp.inf
  tokens = jnp.where(any_finished[..., None], end.finished, end.live)
  scores = jnp.where(any_finished, end.scores, end.log_probs)
  occupied = scores > -jnp.inf
  max_length = tokens.shape[-1]
  is_eos = masks.is_any(tokens, eos_ids)
  ended = jnp.argmax(is_eos, axis=-1).astype(jnp.int32) + 1
  lengths = jnp.where(any_finished, ended, max_length)
  lengths = jnp.where(occupied, lengths, 0)
  counts = jnp.arange(max_length) < lengths[..., None]
  return Samples(
    tokens=jnp.where(counts, tokens, 0),
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
  """The cache `after` decoding of beams that continue these parents [B, K].

  An array of the cache `before` that `decode` handed on as it is does not
  depend on the tokens, so it is the same for all beams of a prompt and stays:
  for T5 the projected encoder output, which is most of the cache.
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
