"""Samples that a student and its teacher draw together, token by token.

Both models keep a cache of their own, and both are fed the token that was
chosen. `Interleaved` is speculative knowledge distillation, `Mixture` the
sampling of MiniLLM; what a token was drawn from is known exactly, see
`Samples.log_probs`.

  both = together(student, teacher)
  strategy = TwoModels(SamplingParams(), Interleaved(top_k=25))
  samples = generate(both, batch, key, strategy, …)
"""

import dataclasses
import functools
import numbers
from typing import Any
from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gkd import masks
from gkd.errors import check_number
from gkd.losses.divergence import log_mixture
from gkd.sampling import filters
from gkd.sampling import sampler
from gkd.sampling.params import SamplingParams
from gkd.sampling.sampler import Samples
from gkd.structured_settings import setting
from gkd.types import Array
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Model
from gkd.types import UserError

# Folded into the student's key: as an int32 below -1, which is no row's id.
_TEACHER_STREAM = 1 << 31


class Proposal(Protocol):
  """What a token is drawn from, made of the distributions of both models."""

  def validate(self) -> None:
    """Raises a UserError if a number (of the host) is out of range."""

  def check_num_ids(self, num_ids: int) -> None:
    """Raises a UserError where it does nothing with so many ids."""

  def describe(self) -> str:
    """A clause about the tokens."""

  def as_arrays(self) -> "Proposal":
    """Numbers of fixed types, so that 1 and 1.0 share a compiled program."""

  def draw(
    self,
    student: Array,
    teacher: Array,
    uniform: tuple[Array, Array],
    params: dict[str, Any],
  ) -> tuple[Array, dict[str, Array]]:
    """Tokens and records of one position, see `sampler.Draw`.

    Args:
      student: [B, V] logits, -inf where an id is not allowed.
      teacher: the same of the teacher.
      uniform: [B, 2] of the student's stream, [B, 2] of the teacher's.
      params: the fields of `SamplingParams`, for each model alone.
    """


@flax.struct.dataclass
class Interleaved:
  """The student proposes; what is not in the teacher's top K is drawn anew.

  Speculative knowledge distillation (arXiv 2410.11325), Algorithm 1: y ~ q, and
  if y is not among the K likeliest ids of the teacher, y ~ p. The paper lets
  the teacher check several tokens at once to save time; each token has the same
  distribution as here, where it checks one at a time:

    m(y) = q(y) [y in top K] + p(y) · (1 - sum of q over the top K)

  Attributes:
    top_k: K; ties are in it.
  """

  top_k: int | Array = setting("TEACHER_TOP_K", default=25)

  def validate(self) -> None:
    check_number(
      "TEACHER_TOP_K",
      self.top_k,
      lambda k: 1 <= k < 1 << 31,
      "a whole number of ids from 1 up, such as 25",
      numbers.Integral,
    )

  def check_num_ids(self, num_ids: int) -> None:
    if self.top_k >= num_ids:
      raise UserError(
        f"TEACHER_TOP_K is {self.top_k}, but the models choose among {num_ids}"
        " ids, so that no token is ever drawn by the teacher; give fewer"
      )

  def describe(self) -> str:
    return (
      f"a token outside the teacher's top {self.top_k} drawn by the teacher"
    )

  def as_arrays(self) -> "Interleaved":
    return Interleaved(np.int32(self.top_k))

  def draw(self, student, teacher, uniform, params):
    proposed, _ = sampler.choose(student, uniform[0], **params)
    drawn_anew, _ = sampler.choose(teacher, uniform[1], **params)
    taken = jnp.isfinite(filters.keep_top_k(teacher, self.top_k))
    redrawn = ~_at(taken, proposed)
    tokens = jnp.where(redrawn, drawn_anew, proposed)
    log_q, log_p = _log_probs(student, params), _log_probs(teacher, params)
    log_taken = jnp.where(taken, log_q, -jnp.inf)
    log_left = jax.nn.logsumexp(jnp.where(taken, -jnp.inf, log_q), axis=-1)
    log_probs = jnp.logaddexp(
      _at(log_taken, tokens), log_left + _at(log_p, tokens)
    )
    return tokens, {"log_probs": log_probs, "redrawn": redrawn}


@flax.struct.dataclass
class Mixture:
  """m = α p + (1 - α) q: MiniLLM's sampling (arXiv 2306.08543), section 2.2.

  Attributes:
    teacher_share: α, the weight of the teacher p.
  """

  teacher_share: float | Array = setting("TEACHER_SHARE", default=0.2)

  def validate(self) -> None:
    check_number(
      "TEACHER_SHARE",
      self.teacher_share,
      lambda share: 0 < share < 1,
      "a number between 0 (no PROPOSAL) and 1 (OFF_POLICY_SOURCE 'teacher')",
    )

  def check_num_ids(self, num_ids: int) -> None:
    del num_ids  # any will do

  def describe(self) -> str:
    share = self.teacher_share
    return f"{share:g} · teacher + {1 - share:g} · student for each token"

  def as_arrays(self) -> "Mixture":
    return Mixture(np.float32(self.teacher_share))

  def draw(self, student, teacher, uniform, params):
    log_q, log_p = _log_probs(student, params), _log_probs(teacher, params)
    mixed = log_mixture(log_p, log_q, self.teacher_share)
    greedy = filters.is_greedy(params["temperature"])
    tokens, log_probs = sampler.choose(
      mixed, uniform[0], jnp.where(greedy, 0.0, 1.0)
    )
    return tokens, {"log_probs": log_probs}


@flax.struct.dataclass
class TwoModels:
  """The strategy of the rows that student and teacher write together.

  Attributes:
    decoding: temperature and filters of each model; greedy, `log_probs` are of
      the proposal at temperature 1.
    proposal: what a token is drawn from.
  """

  decoding: SamplingParams
  proposal: Proposal

  def as_arrays(self) -> "TwoModels":
    return TwoModels(self.decoding.as_arrays(), self.proposal.as_arrays())

  def generate(
    self, model, *prompts, key, num_best, forbidden_ids, **limits
  ) -> Samples:
    """As `strategies.Strategy`, of a model of `together`."""
    assert num_best == 1, "samples of a prompt come from several keys"

    def draw(logits: tuple[Array, Array], uniform: tuple[Array, Array]):
      width = min(of_one.shape[-1] for of_one in logits)
      masked = (
        masks.mask_padded_ids(
          of_one.astype(jnp.float32),
          model.vocabulary_size,
          width=width,
          forbidden_ids=forbidden_ids,
        )
        for of_one in logits
      )
      return self.proposal.draw(*masked, uniform, vars(self.decoding))

    streams = key, jax.random.fold_in(key, _TEACHER_STREAM)
    samples = sampler.draw_sequences(draw, model, *prompts, streams, **limits)
    return jax.tree.map(lambda array: array[:, None], samples)


def together(student: Model, teacher: Model) -> Model:
  """One model whose parameters, cache and logits are pairs."""
  return Model(_pair(student.lm, teacher.lm), (student.params, teacher.params))


@dataclasses.dataclass(frozen=True)
class _Pair(LanguageModel):
  """A model of two, each of which reads a prompt of its own."""

  models: tuple[LanguageModel, ...] = ()

  def prompts(self, batch: Batch):
    return tuple(zip(*(x.prompts(batch) for x in self.models), strict=True))

  def on_device(self, params):
    pairs = zip(self.models, params, strict=True)
    return tuple(model.on_device(own) for model, own in pairs)


@functools.lru_cache(maxsize=16)
def _pair(student: LanguageModel, teacher: LanguageModel) -> _Pair:
  """The functions that sampling calls; made once, as they are static."""
  models = student, teacher

  def init(key):
    return tuple(model.init(key) for model in models)

  def prefill(params, inputs, max_length, *, input_mask):
    both = [
      model.prefill(own, prompts, max_length, input_mask=mask)
      for model, own, prompts, mask in zip(
        models, params, inputs, input_mask, strict=True
      )
    ]
    return tuple(zip(*both, strict=True))

  def decode(params, cache, tokens):
    both = [
      model.decode(*own, tokens)
      for model, *own in zip(models, params, cache, strict=True)
    ]
    return tuple(zip(*both, strict=True))

  def gathered(params):
    return tuple(
      model.gathered(own) if model.gathers_to_sample else own
      for model, own in zip(models, params, strict=True)
    )

  functions = {
    "init": init,
    "prefill": prefill,
    "decode": decode,
    "gathered": gathered,
  }
  kept = {"memory": teacher.memory, "gathers_to_sample": True, "shapes": None}
  return _Pair(**vars(student) | functions | kept, models=models)


def _log_probs(logits: Array, params: dict[str, Any]) -> Array:
  """[B, V] of what one model alone would draw from."""
  return jax.nn.log_softmax(filters.filter_logits(logits, **params))


def _at(values: Array, ids: Array) -> Array:
  """[B, V] at ids [B]."""
  return jnp.take_along_axis(values, ids[:, None], axis=-1)[:, 0]
