"""Has a model answer the prompts of chosen rows of a batch.

One compiled program for each model and input length; temperature, filters, keys
and the choice of rows are traced. Who answers which row is decided in
`rollout.py`.

  batch, stats = answer(batch, chosen, model, params, role=STUDENT_SAMPLE, …)
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np

from gkd import keys
from gkd.metrics import Mean
from gkd.sampling import sampler
from gkd.sampling.params import SamplingParams
from gkd.types import PAD_ID
from gkd.types import Array
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import Source
from gkd.types import UserError


def answer(
  batch: Batch,
  chosen: Array,
  model: LanguageModel,
  params: Params,
  *,
  step: int,
  seed: int,
  role: keys.Role,
  decoding: SamplingParams,
  input_buckets: Sequence[int],
  eos_id: int,
) -> tuple[Batch, dict[str, Mean]]:
  """Replaces the targets of the chosen rows by a model's answers.

  Args:
    batch: prompts; sampled targets get the T of its targets.
    chosen: [B] bool, the rows to answer.
    model: who answers.
    params: its parameters.
    step: of this run.
    seed: of the run; draws are a function of (seed, step, role).
    role: `STUDENT_SAMPLE` or `TEACHER_SAMPLE`.
    decoding: host numbers.
    input_buckets: see `Rollout`.
    eos_id: the id that ends a sequence.

  Returns:
    The batch with targets, weights and source of the chosen rows replaced,
    placed as the given one, and their `sampled_length`, `eos_rate` and
    `truncation_rate`.

  Raises:
    UserError: the batch is packed.
    FloatingPointError: the model's logits were not finite.
  """
  if batch.segments is not None or batch.positions is not None:
    raise UserError(
      "a packed batch cannot be answered by a model; switch packing off, or set"
      " the student fraction to 0 with off_policy_source 'dataset'"
    )
  width = batch.inputs.shape[1]
  if input_buckets:
    buckets = [b for b in input_buckets if b < width] + [width]
    width = sampler.bucket_length(_longest_prompt(batch.inputs), buckets)
  decoding = SamplingParams(
    temperature=np.float32(decoding.temperature),
    top_k=np.int32(decoding.top_k),
    top_p=np.float32(decoding.top_p),
  )
  replaced, statistics, finite = _sample_and_replace(
    params,
    batch,
    chosen,
    seed,
    step,
    decoding,
    eos_id,
    model=model,
    input_length=width,
    role=role,
  )
  if not finite:
    who = "teacher" if role == keys.Role.TEACHER_SAMPLE else "student"
    raise FloatingPointError(
      f"step {step}: generation failed, the {who}'s logits are not finite;"
      " look at its checkpoint, or lower the learning rate"
    )
  return _placed_like(batch, replaced), statistics


@functools.partial(jax.jit, static_argnames=("model", "input_length", "role"))
def _sample_and_replace(
  params,
  batch,
  chosen,
  seed,
  step,
  decoding,
  eos_id,
  *,
  model,
  input_length,
  role,
):
  """The compiled sampler; equal models share it across runs.

  Only the shapes and the static arguments cause a compile, so a model has to be
  the identical or an equal record each time.

  Returns:
    ({name of a batch field: array}, statistics of the chosen rows, whether all
    log-probabilities are finite).
  """
  samples = sampler.sample(
    model,
    params,
    batch.inputs[:, :input_length],
    jnp.where(chosen, batch.rows, -1),  # the others do not hold the loop up
    keys.stream(seed, step, role),
    decoding,
    max_length=batch.targets.shape[1],
    eos_id=eos_id,
  )
  source = {
    keys.Role.STUDENT_SAMPLE: Source.STUDENT,
    keys.Role.TEACHER_SAMPLE: Source.TEACHER,
  }[role]
  column = chosen[:, None]
  replaced = {
    "targets": jnp.where(column, samples.tokens, batch.targets),
    "weights": jnp.where(column, samples.weights, batch.weights),
    "source": jnp.where(chosen, int(source), batch.source),
  }
  statistics = {
    "sampled_length": Mean.of(samples.lengths, chosen),
    "eos_rate": Mean.of(~samples.truncated, chosen),
    "truncation_rate": Mean.of(samples.truncated, chosen),
  }
  return replaced, statistics, jnp.all(jnp.isfinite(samples.log_probs))


def _placed_like(batch: Batch, replaced: dict[str, Array]) -> Batch:
  """The batch with fields replaced, each on the devices of the old one."""
  placed = {}
  for name, array in replaced.items():
    old = getattr(batch, name)
    if isinstance(old, jax.Array):
      array = jax.device_put(array, old.sharding)
    placed[name] = array
  return batch.replace(**placed)


def _longest_prompt(inputs: Array) -> int:
  """Length of the longest prompt of a batch, known to the host."""
  if isinstance(inputs, np.ndarray):
    used = np.flatnonzero((inputs != PAD_ID).any(axis=0))
    return int(used[-1]) + 1 if used.size else 0
  return int(_last_used_column(inputs))


@jax.jit
def _last_used_column(inputs):
  used = jnp.any(inputs != PAD_ID, axis=0)
  return jnp.max(jnp.where(used, jnp.arange(1, used.size + 1), 0))
