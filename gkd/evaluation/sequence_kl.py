"""Sequence-level KL between two models, from samples of one of them.

By the chain rule (Tiapkin et al., arXiv 2502.02671, Section 3)

  KL(p||q) = E_x E_{y~p(.|x)} [log p(y|x) - log q(y|x)]
           = E_x E_{y~p(.|x)} sum_t KL(p(.|x,y_<t) || q(.|x,y_<t)).

The first line is the sampled log-ratio, the second its Rao-Blackwellised form:
the same expectation, less variance, never negative. The second is measured
here. p is the teacher (or the oracle), q the student. The forward KL needs
targets drawn from p, the reverse KL(q||p) targets drawn from q, both at
temperature 1 over the real ids (`evaluate.py` draws them).

  rows = sequence_estimates(teacher, teacher_params, student, params, batch)
  statistics([rows], "forward").compute()   # {"forward_kl": …, …_per_token}
"""

from collections.abc import Sequence
from typing import Literal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gkd.losses.chunked import sum_over_chunks
from gkd.losses.divergence import forward_kl
from gkd.losses.divergence import reverse_kl
from gkd.losses.objective import mask_padded_vocab
from gkd.text.statistics import Statistics
from gkd.types import Array
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Params

Direction = Literal["forward", "reverse"]
_TOKEN_KLS = {"forward": forward_kl, "reverse": reverse_kl}


class Estimates(NamedTuple):
  """One value per sequence; rows without counted tokens hold 0."""

  token_sum: Array  # [B] sum_t KL_t
  num_tokens: Array  # [B]


def sequence_estimates(
  p_model: LanguageModel,
  p_params: Params,
  q_model: LanguageModel,
  q_params: Params,
  batch: Batch,
  *,
  direction: Direction = "forward",
  chunk_size: int | None = None,
) -> Estimates:
  """Token-summed KL of each row of a batch.

  Args:
    p_model: teacher or oracle.
    q_model: student, of the same vocabulary.
    batch: targets drawn from p (forward) or q (reverse).
    direction: "forward" KL(p||q) or "reverse" KL(q||p).
    chunk_size: number of positions whose logits exist at once; None for all.
  """
  assert batch.segments is None, "rows of a packed batch are not sequences"
  vocabulary_size = p_model.vocabulary_size
  assert vocabulary_size == q_model.vocabulary_size

  def of_positions(positions) -> Estimates:
    p_hidden, q_hidden, weights = positions
    p_logits, q_logits = mask_padded_vocab(
      p_model.head(p_params, p_hidden),
      q_model.head(q_params, q_hidden),
      vocabulary_size,
    )
    values = _TOKEN_KLS[direction](
      jax.nn.log_softmax(p_logits), jax.nn.log_softmax(q_logits)
    )
    counts = weights > 0
    return Estimates(
      token_sum=jnp.sum(jnp.where(counts, values, 0.0), axis=-1),
      num_tokens=jnp.sum(counts, axis=-1).astype(jnp.float32),
    )

  positions = (
    p_model.hidden_of(p_params, batch),
    q_model.hidden_of(q_params, batch),
    batch.weights,
  )
  if chunk_size is None:
    return of_positions(positions)
  return sum_over_chunks(of_positions, positions, chunk_size)


def statistics(
  estimates: Sequence[Estimates], direction: Direction
) -> Statistics:
  """The KL as a function of sums over the sequences.

  Args:
    estimates: of all batches, on the host; rows without tokens do not count.
    direction: in which they were measured.

  Returns:
    Of "<direction>_kl", nats a sequence, and "<direction>_kl_per_token", all
    nats over all tokens.
  """
  token_sum, num_tokens = (
    np.concatenate([np.asarray(part, np.float64) for part in parts])
    for parts in zip(*estimates, strict=True)
  )
  is_sequence = num_tokens > 0

  def of_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    nats, sequences, tokens = np.moveaxis(sums, -1, 0)
    return {
      f"{direction}_kl": nats / sequences,
      f"{direction}_kl_per_token": nats / tokens,
    }

  values = np.stack([token_sum, is_sequence, num_tokens], axis=-1)
  return Statistics(values[is_sequence], of_sums)
