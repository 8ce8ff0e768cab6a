"""Cuts a batch to the length of its texts before it is scored.

An update costs what the shape of its batch is, padding included. The student's
texts often end long before the target length, so that a batch is cut to the
smallest of a few lengths that holds them, one compiled update for each.

  batch = cut(batch, 4, timer)
"""

import functools
import numbers

import jax
import jax.numpy as jnp

from gkd import processes
from gkd.errors import check_number
from gkd.training.telemetry import PhaseTimer
from gkd.types import Array
from gkd.types import Batch


def check(buckets: int) -> None:
  """Refuses another number than one or more."""
  check_number(
    "LENGTH_BUCKETS", buckets, lambda n: n >= 1, "1 or more", numbers.Integral
  )


def cut(batch: Batch, buckets: int, timer: PhaseTimer) -> Batch:
  """The batch without columns that are padding in all rows.

  The loss is the same but for the order of sums, and for masks of dropout that
  are drawn for each position: of T5's attention and of its encoder's output.

  Args:
    batch: on the devices; this waits for it.
    buckets: inputs and targets have one of so many lengths, equal parts of the
      whole; 1 for the whole, which is not waited for.
    timer: takes the time of waiting for the texts, "sample".
  """
  if buckets == 1:
    return batch
  sizes = batch.inputs.shape[1], batch.targets.shape[1]
  with timer("sample", waits=True):
    used = jax.device_get(processes.replicate(_used(batch)))
  parts = [-(-size // buckets) for size in sizes]
  lengths = [
    min(size, part * -(-int(length) // part))
    for size, part, length in zip(sizes, parts, used, strict=True)
  ]
  return _cut(batch, *lengths)


@jax.jit
def _used(batch: Batch) -> tuple[Array, Array]:
  """Columns of inputs and targets up to the last one in use, at least 1."""
  return tuple(
    jnp.max(mask * (1 + jnp.arange(mask.shape[1])), initial=1).astype(jnp.int32)
    for mask in (batch.input_mask, batch.weights > 0)
  )


@functools.partial(jax.jit, static_argnums=(1, 2))
def _cut(batch: Batch, inputs: int, targets: int) -> Batch:
  cuts = {
    "inputs": inputs,
    "input_mask": inputs,
    "targets": targets,
    "weights": targets,
    "log_probs": targets,
  }
  if batch.advantages is not None and batch.advantages.ndim == 2:
    cuts["advantages"] = targets
  fields = {
    name: None if array is None else array[:, :length]
    for name, length in cuts.items()
    for array in [getattr(batch, name)]
  }
  for name in ("segments", "positions"):
    if (pair := getattr(batch, name)) is not None:
      fields[name] = type(pair)(
        pair.inputs[:, :inputs], pair.targets[:, :targets]
      )
  return batch.replace(**fields)
