"""Replaces the targets of chosen rows of a batch by samples of a model.

Which rows get samples of which model is decided in `rollout.py`; the generator
is `gkd.sampling.generate`. Temperature, filters, keys and the choice of rows
are traced.

  batch, means, finite = replace_targets(batch, chosen, model, …)
"""

import functools

import jax
import jax.numpy as jnp

from gkd import keys
from gkd.metrics import Mean
from gkd.sampling.generate import generate
from gkd.sampling.sampler import Samples
from gkd.sampling.strategies import Strategy
from gkd.text.vocabulary import Vocabulary
from gkd.types import Array
from gkd.types import Batch
from gkd.types import Model
from gkd.types import Source
from gkd.types import UserError

_SOURCES = {
  keys.Role.STUDENT_SAMPLE: Source.STUDENT,
  keys.Role.TEACHER_SAMPLE: Source.TEACHER,
}


def replace_targets(
  batch: Batch,
  chosen: Array,
  model: Model,
  decoding: Strategy,
  *,
  step: int,
  seed: int,
  role: keys.Role,
  input_width: int | None,
  vocabulary: Vocabulary,
  horizon: int | None = None,
) -> tuple[Batch, dict[str, Mean], Array]:
  """Replaces the targets of the chosen rows by a model's samples.

  Args:
    batch: prompts; samples get the T of its targets.
    chosen: [B] bool, the rows to sample for.
    model: the model that is sampled from.
    decoding: the strategy, of host numbers.
    step: of this run; draws are a function of (seed, step, role).
    seed: of the run.
    role: `STUDENT_SAMPLE` or `TEACHER_SAMPLE`.
    input_width: columns of the inputs that hold prompts; None for all.
    vocabulary: of the batch.
    horizon: see `generate`.

  Returns:
    The batch with targets, weights and source of the chosen rows replaced, and
    `log_probs` where it has them, placed as the given one; their
    `sampled_length`, `eos_rate`, `truncation_rate` and `repetition_rate`, the
    share of tokens that repeat the one before, `redrawn_rate` and
    `rollout_horizon` where there are such; whether the model's logits were
    finite.

  Raises:
    UserError: the batch is packed.
  """
  if batch.segments is not None or batch.positions is not None:
    raise UserError(
      "a model cannot be sampled from for a packed batch; switch packing off,"
      " or set the student fraction to 0 with off_policy_source 'dataset'"
    )
  samples = generate(
    model,
    _prompts(batch, chosen, input_width or batch.inputs.shape[1]),
    keys.stream(seed, step, role),
    decoding,
    max_length=batch.targets.shape[1],
    vocabulary=vocabulary,
    horizon=horizon,
  )
  replaced, statistics, finite = _replace(batch, chosen, samples, role)
  if horizon is not None:
    statistics["rollout_horizon"] = Mean.of(horizon)
  if isinstance(batch.targets, jax.Array):  # on the devices of the old fields
    old = {name: getattr(batch, name).sharding for name in replaced}
    replaced = jax.device_put(replaced, old)
  return batch.replace(**replaced), statistics, finite


@functools.partial(jax.jit, static_argnums=2)
def _prompts(batch: Batch, chosen: Array, width: int) -> Batch:
  """The batch cut to prompts [B, width]."""
  return batch.replace(
    inputs=batch.inputs[:, :width],
    input_mask=batch.input_mask[:, :width],
    # Rows that are not chosen must not keep the sampling loop running.
    rows=jnp.where(chosen, batch.rows, -1),
  )


@functools.partial(jax.jit, static_argnums=3)
def _replace(
  batch: Batch, chosen: Array, samples: Samples, role: keys.Role
) -> tuple[dict[str, Array], dict[str, Mean], Array]:
  """Replaced fields, statistics of the chosen rows, whether all is finite."""
  column = chosen[:, None]
  replaced = {
    "targets": jnp.where(column, samples.tokens, batch.targets),
    "weights": jnp.where(column, samples.weights, batch.weights),
    "source": jnp.where(chosen, int(_SOURCES[role]), batch.source),
  }
  if batch.log_probs is not None:
    replaced["log_probs"] = jnp.where(
      column, samples.log_probs, batch.log_probs
    )
  repeats = samples.tokens[:, 1:] == samples.tokens[:, :-1]
  later = samples.weights[:, 1:] * column
  statistics = {
    "sampled_length": Mean.of(samples.lengths, chosen),
    "eos_rate": Mean.of(~samples.truncated, chosen),
    "truncation_rate": Mean.of(samples.truncated, chosen),
    "repetition_rate": Mean.of(repeats, later),
  }
  if samples.redrawn is not None:
    drawn = samples.weights * column
    statistics["redrawn_rate"] = Mean.of(samples.redrawn, drawn)
  return replaced, statistics, samples.is_finite
