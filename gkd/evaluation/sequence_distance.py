"""Distances between the sequence distributions of two models, from samples.

Tiapkin et al., arXiv 2502.02671, Section 3. Sequences are drawn from p (the
teacher, or any model the student is compared with) or from q (the student), at
temperature 1 over the real ids; `comparisons.py` has them drawn.

  forward KL  E_{y~p} [log p(y|x) - log q(y|x)]
  reverse KL  E_{y~q} [log q(y|x) - log p(y|x)]
  JSD(beta)   beta E_{y~p} [log p(y|x) - log m(y|x)]
              + (1-beta) E_{y~q} [log q(y|x) - log m(y|x)],
              m(y|x) = beta p(y|x) + (1-beta) q(y|x)

Each is an expectation of log a(y) - log m(y) under the model a that wrote y,
with a mixture m = w a + (1-w) b; w = 0 makes a KL of it. The brackets are the
sampled log-ratio. By the chain rule the expectation is also that of

  sum_t KL(a_t || m_t),   m_t = w_t a_t + (1-w_t) b_t,
  w_t = w a(y_<t) / (w a(y_<t) + (1-w) b(y_<t)),

its Rao-Blackwellised form: less variance, never negative. All of it is about
sequences as they are drawn: one that is cut at the longest length T is a
sequence of both models' processes that end there, and its distance is theirs.
What a model leaves to the padding counts as in the loss; nothing draws it.

On the same sequences, the agreement: the share of tokens at which a and b
prefer the same one; and the acceptance, the mean of sum_v min(a, b) = 1 - TV:
as often speculative decoding takes a token that b proposes there for a
(Leviathan et al., arXiv 2211.17192, Theorem 3.5).

  rows = estimates(teacher, teacher_params, student, params, batch)
  Distance.named("forward_kl").statistics({"p": [rows]}).compute()
  # {"forward_kl": …, "forward_kl_per_token": …}
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import math
import re
from typing import Any
from typing import Literal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gkd import blocks
from gkd.losses.chunked import sum_over_chunks
from gkd.losses.divergence import forward_kl
from gkd.losses.divergence import total_variation
from gkd.losses.likelihood import score_tokens
from gkd.losses.token_metrics import mask_padded_vocab
from gkd.text.statistics import Statistics
from gkd.types import Array
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import UserError

Writer = Literal["p", "q"]
_NAME = re.compile(
  r"(?:(forward)_kl|(reverse)_kl|jsd_(0?\.\d*[1-9]\d*))(_log_ratio)?"
)


class Distance(NamedTuple):
  """A distance and how it is estimated.

  Attributes:
    name: "forward_kl", "reverse_kl" or "jsd_<beta>", as in jsd_0.5; with
      "_log_ratio" by sampled log-ratios, else token-summed.
    beta: 0 of the forward KL, 1 of the reverse KL, between them of a JSD.
    is_log_ratio: by sampled log-ratios.
  """

  name: str
  beta: float
  is_log_ratio: bool

  @classmethod
  def named(cls, name: str) -> "Distance":
    """The distance of a name of EVAL_DISTANCES.

    Raises:
      UserError: there is no such distance.
    """
    if (match := _NAME.fullmatch(name)) is None:
      raise UserError(
        f"EVAL_DISTANCES has {name!r}; expected forward_kl, reverse_kl, jsd_0.5"
        " or another beta between 0 and 1, or one of these followed by"
        " _log_ratio"
      )
    forward, reverse, beta, is_log_ratio = match.groups()
    beta = 0.0 if forward else 1.0 if reverse else float(beta)
    return cls(name, beta, bool(is_log_ratio))

  @property
  def terms(self) -> dict[Writer, tuple[float, float]]:
    """{who writes the sequences: (coefficient, w of the writer in m)}."""
    if self.beta in (0, 1):
      return {"q" if self.beta else "p": (1.0, 0.0)}
    rest = 1 - self.beta
    return {"p": (self.beta, self.beta), "q": (rest, rest)}

  def statistics(
    self, estimated: Mapping[Writer, Sequence["Estimates"]]
  ) -> Statistics:
    """The distance as a function of sums over the prompts.

    Args:
      estimated: estimates of all batches by who wrote them, on the host; rows
        without tokens do not count.

    Returns:
      Of "<name>", nats a sequence, and "<name>_per_token", all nats over all
      tokens; of a JSD nats and tokens are weighted sums over both writers.
    """
    nats, tokens = 0.0, 0.0
    for writer, (coefficient, weight) in self.terms.items():
      parts = estimated[writer]
      nats += coefficient * (
        _log_ratios(parts, weight)
        if self.is_log_ratio
        else _joined(part.token_sums[weight] for part in parts)
      )
      tokens += coefficient * _joined(part.num_tokens for part in parts)
    is_sequence = tokens > 0

    def of_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
      nats, sequences, tokens = np.moveaxis(sums, -1, 0)
      return {
        self.name: nats / sequences,
        f"{self.name}_per_token": nats / tokens,
      }

    values = np.stack([nats, is_sequence, tokens], axis=-1)
    return Statistics(values[is_sequence], of_sums)


class Estimates(NamedTuple):
  """One value per sequence; rows without counted tokens hold 0."""

  num_tokens: Array  # [B]
  token_sums: dict[float, Array]  # {w: [B] sum_t KL(a_t || m_t)}
  num_agreeing: Array  # [B], of these tokens
  accepted: Array  # [B] sum_t 1 - TV(a_t, b_t)
  log_probs: tuple[Array, Array]  # [B] log a(y) and log b(y), or nothing


def estimates(
  a_model: LanguageModel,
  a_params: Params,
  b_model: LanguageModel,
  b_params: Params,
  batch: Batch,
  *,
  weights: Sequence[float] = (0.0,),
  log_probs: bool = False,
  chunk_size: int | None = None,
) -> Estimates:
  """What distances and agreement are made of, for each row of a batch.

  Args:
    a_model: what the targets are drawn from.
    b_model: the other one, of the same vocabulary.
    batch: sequences of a.
    weights: w of each token sum, from 0 to below 1.
    log_probs: whether a sampled log-ratio is needed.
    chunk_size: number of positions whose logits exist at once; None for all.
  """
  assert batch.segments is None, "rows of a packed batch are not sequences"
  assert a_model.vocabulary_size == b_model.vocabulary_size
  a_params = a_model.on_device(a_params)
  b_params = b_model.on_device(b_params)
  models = (a_model, a_params), (b_model, b_params)
  log_ratio, scores = jnp.zeros(batch.targets.shape), ()
  counts = batch.weights > 0
  if log_probs or any(weights):
    log_a, log_b = (
      jnp.where(counts, score_tokens(model, params, batch), 0.0)
      for model, params in models
    )
    scores = jnp.sum(log_a, axis=-1), jnp.sum(log_b, axis=-1)
    ratio_of_all = jnp.cumsum(log_a - log_b, axis=-1)
    log_ratio = jnp.pad(ratio_of_all[:, :-1], ((0, 0), (1, 0)))  # of y_<t

  def of_positions(positions) -> tuple[Any, ...]:
    a_hidden, b_hidden, counts, log_ratio = positions
    logits = mask_padded_vocab(
      a_model.head(a_params, a_hidden),
      b_model.head(b_params, b_hidden),
      a_model.vocabulary_size,
    )
    is_equal = jnp.equal(*map(blocks.largest, logits))
    log_a, log_b = map(jax.nn.log_softmax, logits)
    values = {
      w: forward_kl(log_a, _log_mixture(log_a, log_b, w, log_ratio))
      for w in weights
    }
    values = values, is_equal, 1 - total_variation(log_a, log_b)
    return jax.tree.map(lambda x: jnp.sum(x, axis=-1, where=counts), values)

  hidden = (model.hidden_of(params, batch) for model, params in models)
  positions = (*hidden, counts, log_ratio)
  found = sum_over_chunks(of_positions, positions, chunk_size)
  return Estimates(jnp.sum(counts, axis=-1), *found, scores)


def shares(writer: str, parts: Sequence[Estimates]) -> Statistics:
  """`agreement_on_<writer>_text` and `acceptance_on_…`, of all tokens."""
  sums = [
    _joined(getattr(part, name) for part in parts)
    for name in ("num_agreeing", "accepted", "num_tokens")
  ]

  def of_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    agreeing, accepted, tokens = np.moveaxis(sums, -1, 0)
    return {
      f"agreement_on_{writer}_text": agreeing / tokens,
      f"acceptance_on_{writer}_text": accepted / tokens,
    }

  return Statistics(np.stack(sums, axis=-1)[sums[-1] > 0], of_sums)


def length_ratio(
  own: Sequence[Estimates], of: Sequence[Estimates]
) -> Statistics:
  """`length_ratio`: mean length of one model's sequences over another's."""
  lengths = [_joined(part.num_tokens for part in parts) for parts in (own, of)]

  def of_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    return {"length_ratio": sums[..., 0] / sums[..., 1]}

  values = np.stack(lengths, axis=-1)
  return Statistics(values[values.min(axis=-1) > 0], of_sums)


def _log_mixture(log_a: Array, log_b: Array, w: float, log_ratio: Array):
  """Log m_t [B, T, V] of log a_t and log b_t, log a(y_<t) / b(y_<t) [B, T]."""
  if w == 0:
    return log_b
  logit = (log_ratio + math.log(w / (1 - w)))[..., None]
  return jnp.logaddexp(
    jax.nn.log_sigmoid(logit) + log_a, jax.nn.log_sigmoid(-logit) + log_b
  )


def _log_ratios(parts: Sequence[Estimates], w: float) -> np.ndarray:
  """[N] log a(y) - log m(y)."""
  log_a, log_b = (_joined(part.log_probs[i] for part in parts) for i in (0, 1))
  if w == 0:
    return log_a - log_b
  return log_a - np.logaddexp(math.log(w) + log_a, math.log(1 - w) + log_b)


def _joined(columns: Iterable[Array]) -> np.ndarray:
  """[N] float64 of the batches' [B]."""
  return np.concatenate([np.asarray(column, np.float64) for column in columns])
