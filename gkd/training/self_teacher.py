"""A teacher made of the student itself: the live one, or an average of it.

  teacher_0 = student_0,  teacher_t = d · teacher_{t−1} + (1 − d) · student_t

after update t, with a decay d (SDFT, arXiv 2601.19897; the average is that of
Tarvainen and Valpola, arXiv 1703.01780). At d = 0 it is the student as it is
before each update, held constant in the loss: no parameter is kept twice. Above
0 the average is a part of the state, and so of each checkpoint.
"""

from collections.abc import Collection
from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp
import optax

from gkd.errors import check_number
from gkd.types import Model
from gkd.types import Params
from gkd.types import UserError


def made(
  decay: float,
  roles: Mapping[str, Model],
  compared: Collection[str],
  features: Collection[str],
) -> Model:
  """The teacher without its parameters, see `params_of`.

  Args:
    decay: d.
    roles: the other models of the run.
    compared: roles that the objective compares the student with.
    features: of the data; it reads the "teacher_inputs" where there are any.

  Raises:
    UserError: it would teach nothing, or there is another teacher.
  """
  check_number(
    "TEACHER_DECAY",
    decay,
    lambda d: 0 <= d < 1,
    "a number from 0 to below 1: 0 for the student itself, 0.99 for an average"
    " over about the last 100 updates; or None for a teacher of its own",
  )
  reads, reason = "teacher_inputs" in features, ""
  if "teacher" in roles:
    reason = "but there is another teacher; leave one of the two out"
  elif "teacher" not in compared:
    reason = "but the objective compares with no teacher; leave it out"
  elif not (decay or reads):
    reason = (
      "and the teacher reads the student's own prompts, so that but for"
      " temperatures and dropout it has nothing to teach; give TEACHER_TASK,"
      " TEACHER_INPUTS or TEACHER_CACHE, or a decay above 0"
    )
  if reason:
    raise UserError(f"TEACHER_DECAY is {decay} {reason}")
  lm = dataclasses.replace(roles["student"].lm, privileged=reads)
  return Model(lm, {})


def first_average(decay: float | None, params: Params) -> Params | None:
  """The average before the first update, in float32; None where none is kept.

  Args:
    decay: d; None for a teacher of its own.
    params: the student's.
  """
  if not decay:
    return None
  return jax.tree.map(lambda x: jnp.array(x, jnp.float32), params)


def next_average(
  decay: float | None, average: Params | None, params: Params
) -> Params | None:
  """The average after an update that made `params`."""
  if not decay:
    return None
  return optax.incremental_update(params, average, 1 - decay)


def params_of(decay: float, params: Params, average: Params | None) -> Params:
  """The teacher's parameters, of those that a state has."""
  return average if decay else params


def describe(decay: float) -> str:
  """What the teacher is, in words."""
  if not decay:
    return "the student itself, as it is before each update"
  return f"the student's average, of decay {decay:g}, in float32"
