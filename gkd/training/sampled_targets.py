"""Replaces the targets of chosen rows of a batch by samples of a model.

Which rows get samples of which model is decided in `rollout.py`; the generator
is `gkd.sampling.generate`. Temperature, filters, keys and the choice of rows
are traced.

  batch, means, finite = replace_targets(batch, chosen, model, params, …)
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp

from gkd import keys
from gkd.metrics import Mean
from gkd.sampling.generate import generate
from gkd.sampling.sampler import Samples
from gkd.sampling.strategies import Strategy
from gkd.types import Array
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import Source
from gkd.types import UserError

_SOURCES = {
  keys.Role.STUDENT_SAMPLE: Source.STUDENT,
  keys.Role.TEACHER_SAMPLE: Source.TEACHER,
}


def replace_targets(
  batch: Batch,
  chosen: Array,
  model: LanguageModel,
  params: Params,
  *,
  step: int,
  seed: int,
  role: keys.Role,
  decoding: Strategy,
  input_width: int | None,
  eos_ids: Sequence[int],
  pad_id: int,
) -> tuple[Batch, dict[str, Mean], Array]:
  """Replaces the targets of the chosen rows by a model's samples.

  Args:
    batch: prompts; samples get the T of its targets.
    chosen: [B] bool, the rows to sample for.
    model: the model that is sampled from.
    params: its parameters.
    step: of this run.
    seed: of the run; draws are a function of (seed, step, role).
    role: `STUDENT_SAMPLE` or `TEACHER_SAMPLE`.
    decoding: the strategy, of host numbers.
    input_width: columns of the inputs that hold prompts; None for all.
    eos_ids: the ids that end a sequence.
    pad_id: the vocabulary's padding, which is never drawn.

  Returns:
    The batch with targets, weights and source of the chosen rows replaced,
    placed as the given one; their `sampled_length`, `eos_rate` and
    `truncation_rate`; whether the model's logits were finite.

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
    params,
    *_prompts(batch, chosen, input_width or batch.inputs.shape[1]),
    _key(seed, step, role),
    decoding,
    max_length=batch.targets.shape[1],
    eos_ids=eos_ids,
    pad_id=pad_id,
  )
  replaced, statistics, finite = _replace(batch, chosen, samples, role)
  return _placed_like(batch, replaced), statistics, finite


@functools.partial(jax.jit, static_argnums=2)
def _prompts(
  batch: Batch, chosen: Array, width: int
) -> tuple[Array, Array, Array]:
  """Inputs and mask [B, width], and example ids; −1 for rows not chosen."""
  # Rows that are not chosen must not keep the sampling loop running.
  example_ids = jnp.where(chosen, batch.rows, -1)
  return batch.inputs[:, :width], batch.input_mask[:, :width], example_ids


_key = jax.jit(keys.stream, static_argnums=2)


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
  statistics = {
    "sampled_length": Mean.of(samples.lengths, chosen),
    "eos_rate": Mean.of(~samples.truncated, chosen),
    "truncation_rate": Mean.of(samples.truncated, chosen),
  }
  return replaced, statistics, samples.is_finite


def _placed_like(batch: Batch, replaced: dict[str, Array]) -> Batch:
  """The batch with fields replaced, each on the devices of the old one."""
  placed = {}
  for name, array in replaced.items():
    old = getattr(batch, name)
    if isinstance(old, jax.Array):
      array = jax.device_put(array, old.sharding)
    placed[name] = array
  return batch.replace(**placed)
