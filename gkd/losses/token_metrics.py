"""What an objective reports of a batch beside its loss, and the loss by parts.

Per-token metrics are at temperature 1 over the real ids, whatever the loss
uses, and carry no gradient. Some come by parts, `<metric>/<part>`: the thirds
of a sequence and who wrote it.
"""

import jax
import jax.numpy as jnp

from gkd import blocks
from gkd import masks
from gkd.losses import divergence as divergences
from gkd.losses.chunked import Sums
from gkd.metrics import Mean
from gkd.types import Array
from gkd.types import Source

# Metrics that come by parts, too.
_BY_PART = ("student_entropy", "agreement")
_THIRDS = ("first_third", "middle_third", "last_third")


def mask_padded_vocab(
  first: Array, second: Array, vocabulary_size: int
) -> tuple[Array, Array]:
  """Two models' float32 logits [..., V] over one width, padded ids at -inf."""
  width = min(first.shape[-1], second.shape[-1])
  first, second = (
    masks.mask_padded_ids(
      logits.astype(jnp.float32), vocabulary_size, width=width
    )
    for logits in (first, second)
  )
  return first, second


def parts_of(thirds: Array, source: Array) -> dict[str, Array]:
  """Where [B, T] each part of the positions is, by name."""
  by_third = {name: thirds == place for place, name in enumerate(_THIRDS)}
  by_source = {
    member.name.lower(): (source == member)[:, None] for member in Source
  }
  return by_third | by_source


def compare(
  student: Array,
  teacher: Array | None,
  weights: Array,
  parts: dict[str, Array],
) -> dict[str, Mean]:
  """Per-token metrics at temperature 1, from masked logits [B, T, V]."""
  counts = weights > 0
  student = jax.lax.stop_gradient(student.astype(jnp.float32))
  log_q = jax.nn.log_softmax(student)
  values = {"student_entropy": divergences.entropy(log_q)}
  if teacher is not None:
    log_p = jax.nn.log_softmax(teacher)
    values |= {
      "teacher_entropy": divergences.entropy(log_p),
      "forward_kl": divergences.forward_kl(log_p, log_q),
      "reverse_kl": divergences.reverse_kl(log_p, log_q),
      "agreement": blocks.largest(student) == blocks.largest(teacher),
    }
  metrics = {name: Mean.of(value, counts) for name, value in values.items()}
  return metrics | {
    f"{name}/{part}": Mean.of(values[name], counts & mask)
    for part, mask in parts.items()
    for name in _BY_PART
    if name in values
  }


def reduce(
  values: Array,
  coefficients: Array,
  parts: dict[str, Array],
  metrics: dict[str, Mean],
) -> Sums:
  """sum(coefficients * values), and the loss of each part beside `metrics`.

  Positions of coefficient 0 may hold anything, infinities included.
  """
  weighted = jnp.where(coefficients != 0, coefficients * values, 0.0)
  held = jax.lax.stop_gradient(values)
  losses = {
    f"loss/{part}": Mean.of(held, coefficients * mask)
    for part, mask in parts.items()
  }
  return jnp.sum(weighted), metrics | losses
