"""Random streams as pure functions of (seed, step, role, row, position).

Nothing about randomness has to be saved: every draw of a run can be made again
from the seed and the step. A row's draws fold in its global row id, so they
depend neither on the neighbours in the batch nor on the batch size. A row that
is drawn for again in the same batch gets other draws the second time.
"""

import enum

import jax
import jax.numpy as jnp

from gkd.errors import UserError
from gkd.types import Array
from gkd.types import Key

_FLAGS = {"jax_enable_x64": False, "jax_threefry_partitionable": True}


class Role(enum.IntEnum):
  """What a stream is for. Values are part of the format: never renumber."""

  INIT = 0
  DATA = 1
  LAMBDA = 2
  STUDENT_SAMPLE = 3
  TEACHER_SAMPLE = 4
  DROPOUT = 5
  EVALUATION = 6
  OFFLINE_SAMPLE = 7


def stream(seed: int | Array, step: int | Array, role: Role) -> Key:
  """Key of one role at one step.

  The generator is named rather than left to JAX's default, so that a changed
  default cannot change a run; flags that do are refused.
  """
  check_flags()
  return _stream(seed, step, int(role))


@jax.jit  # one small program, whatever the role
def _stream(seed, step, role):
  key = jax.random.key(seed, impl="threefry2x32")
  return jax.random.fold_in(jax.random.fold_in(key, step), role)


def check_flags() -> None:
  """Raises where a flag of JAX gives other numbers to a seed.

  With 64 bits uniforms are float64, and without "partitionable" the generator
  counts in another order: weights, coins and tokens are others, and a resumed
  run would go on with another loss.
  """
  for name, value in _FLAGS.items():
    actual = getattr(jax.config, name)
    if actual != value:
      raise UserError(
        f"{name.upper()} is {actual}, with which a seed has other draws; unset"
        f' that variable, or call jax.config.update("{name}", {value})'
      )


def per_row(key: Key, example_ids: Array) -> Key:
  """[B] keys, one per global row id of `example_ids` [B].

  An id that occurred earlier in the batch also folds in how often it did, so
  that two completions of one prompt differ.
  """
  row_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, example_ids)
  same = example_ids[:, None] == example_ids
  occurrence = jnp.sum(jnp.tril(same, -1), axis=1, dtype=jnp.int32)
  # Negative, as `at_position` folds in the numbers from 0 on.
  again = jax.vmap(jax.random.fold_in)(row_keys, -occurrence)
  return jnp.where(occurrence > 0, again, row_keys)


def at_position(row_keys: Key, position: int | Array) -> Key:
  """[B] keys of one target position, from the keys of the rows [B]."""
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(row_keys, position)
