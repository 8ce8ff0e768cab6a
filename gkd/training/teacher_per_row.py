"""Several teachers, each of which scores its own rows of a batch alone.

`Batch.teacher` says whose a row is. Rows are sorted by teacher into blocks of
b, each of one teacher; a loop runs each block through its teacher, and the
hidden states go back to the places of the rows. Shapes are static: B rows of K
teachers fit into B/b + K - 1 blocks whatever their shares, and a block without
rows is passed over. Logits stay where they are: each of the K heads is applied
to all rows, of which each keeps those of its own teacher.

  teacher = TeacherPerRow(("easy", "hard"), (lm_easy, lm_hard))
  hidden = teacher.hidden_of({"easy": params_easy, "hard": …}, batch)
  logits = teacher.head_of({"easy": params_easy, "hard": …}, batch)(hidden)
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gkd import logical_axes
from gkd.metrics import Mean
from gkd.types import Array
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Model
from gkd.types import Params
from gkd.types import UserError

_LEAST_BLOCKS = 4  # K - 1 blocks of padding are at most a quarter of the rows


class Blocks(NamedTuple):
  """Rows of a batch, put into N blocks of b."""

  rows: Array  # [N, b] int32, the row in each place; 0 where there is none
  teacher: Array  # [N] int32, whose it is; K for a block without rows
  places: Array  # [B] int32, place of each row, counted through the blocks


def blocks_of(teacher: Array, num_teachers: int, size: int) -> Blocks:
  """Blocks of one teacher each.

  Args:
    teacher: [B] int32 in [0, K).
    num_teachers: K.
    size: b, which divides B.
  """
  num_rows = teacher.shape[0]
  order = jnp.argsort(teacher, stable=True)
  counts = jnp.bincount(teacher, length=num_teachers)
  used = -(-counts // size)
  ends = jnp.cumsum(used)
  owner = teacher[order]
  rank = jnp.arange(num_rows) - (jnp.cumsum(counts) - counts)[owner]
  places = (ends - used)[owner] * size + rank
  num_blocks = num_rows // size + num_teachers - 1
  rows = jnp.zeros(num_blocks * size, jnp.int32).at[places].set(order)
  return Blocks(
    rows.reshape(num_blocks, size),
    jnp.searchsorted(ends, jnp.arange(num_blocks), side="right"),
    jnp.zeros(num_rows, jnp.int32).at[order].set(places),
  )


@dataclasses.dataclass(frozen=True)
class TeacherPerRow:
  """Scores like a `LanguageModel`; its parameters are {name: of a teacher}.

  Attributes:
    names: of the teachers, in the order that `Batch.teacher` counts in.
    models: of the same vocabulary, each of its own size.
    mesh: of the rows, of which a block has some for each device with rows of
      its own; None for one device.
  """

  names: tuple[str, ...]
  models: tuple[LanguageModel, ...]
  mesh: jax.sharding.Mesh | None = None

  def block_size(self, num_rows: int) -> int:
    """The b of a batch of so many rows."""
    mesh = self.mesh
    copies = 1 if mesh is None else mesh.size // mesh.shape["model"]
    units = num_rows // copies
    most = max(1, units // (_LEAST_BLOCKS * max(1, len(self.names) - 1)))
    return copies * max(n for n in range(1, most + 1) if units % n == 0)

  def on_device(self, params: Mapping[str, Params]) -> dict[str, Params]:
    """See `LanguageModel.on_device`."""
    return {name: lm.on_device(params[name]) for name, lm in self._named}

  def hidden_of(self, params: Mapping[str, Params], batch: Batch) -> Array:
    """[B, T, D] of the widest teacher; behind those of others are zeros."""
    branches = [
      functools.partial(lm.hidden_of, params[name]) for name, lm in self._named
    ]
    size = self.block_size(batch.teacher.shape[0])
    blocks = blocks_of(batch.teacher, len(self.names), size)
    found = _in_blocks(branches, batch, blocks)
    if self.mesh is None:
      return found
    with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
      return logical_axes.constrain_states(found)

  def head_of(
    self, params: Mapping[str, Params], batch: Batch
  ) -> Callable[[Array], Array]:
    """Heads for `hidden_of`: [B, t, D] -> logits [B, t, V].

    V is the width of the narrowest table, which has all real ids.
    """
    whole = [model.gathered(params[name]) for name, model in self._named]
    widths = [
      jax.eval_shape(model.hidden_of, params[name], batch).shape[-1]
      for name, model in self._named
    ]

    def head(hidden: Array) -> Array:
      each = [
        model.head(own, hidden[..., :width])
        for model, own, width in zip(self.models, whole, widths, strict=True)
      ]
      num_logits = min(logits.shape[-1] for logits in each)
      found = each[0][..., :num_logits]
      for index, logits in enumerate(each[1:], 1):
        is_own = (batch.teacher == index)[:, None, None]
        found = jnp.where(is_own, logits[..., :num_logits], found)
      return found

    return head

  def token_shares(self, batch: Batch) -> dict[str, Mean]:
    """`token_share/<teacher>`, of the tokens that count."""
    total = jnp.sum(batch.weights)
    return {
      f"token_share/{name}": Mean(
        jnp.sum(batch.weights * (batch.teacher == index)[:, None]), total
      )
      for index, name in enumerate(self.names)
    }

  @property
  def _named(self) -> list[tuple[str, LanguageModel]]:
    return list(zip(self.names, self.models, strict=True))


def check(
  teachers: Sequence[str],
  roles: Collection[str],
  compared: Collection[str],
  *,
  writes: bool,
) -> None:
  """Refuses teachers by row that a run has not, or that it does not use.

  Args:
    teachers: their names; empty for one teacher or none.
    roles: of the models of the run.
    compared: roles that the objective compares the student with.
    writes: whether a teacher has to write text.
  """
  reason = ""
  if "teacher" in roles:
    reason = "there is another teacher for all rows; leave one of them out"
  elif missing := [name for name in teachers if name not in roles]:
    reason = f"there is no model {missing[0]!r}; give one"
  elif "teacher" not in compared:
    reason = "the objective compares with no teacher; leave TEACHERS out"
  elif writes:
    reason = (
      "they only score; set OFF_POLICY_SOURCE to 'dataset' and PROPOSAL to None"
    )
  if teachers and reason:
    raise UserError(f"TEACHERS are {', '.join(teachers)} but {reason}")


def scoring_models(
  compared: Sequence[str],
  models: Mapping[str, Model],
  teachers: Sequence[str],
  mesh: jax.sharding.Mesh,
) -> dict[str, LanguageModel | TeacherPerRow]:
  """What an objective compares the student with, by role.

  Args:
    compared: roles of the objective; one that the run lacks is left out.
    models: of the run, by role.
    teachers: names of those by row; empty for one teacher or none.
    mesh: of the run.
  """
  found: dict[str, Any] = {r: models[r].lm for r in compared if r in models}
  if teachers:
    own = tuple(models[name].lm for name in teachers)
    found["teacher"] = TeacherPerRow(tuple(teachers), own, mesh)
  return found


def scoring_params(
  scored: Mapping[str, LanguageModel | TeacherPerRow],
  models: Mapping[str, Model],
) -> dict[str, Any]:
  """Parameters of the models of `scoring_models` that are frozen.

  Args:
    scored: them.
    models: the frozen models of the run, by role.
  """
  return {
    role: {name: models[name].params for name in model.names}
    if isinstance(model, TeacherPerRow)
    else models[role].params
    for role, model in scored.items()
    if isinstance(model, TeacherPerRow) or role in models
  }


def _in_blocks(
  branches: Sequence[Callable[[Any], Array]], rows: Any, blocks: Blocks
) -> Array:
  """[B, …, W]: each row as the branch of its teacher makes it.

  Args:
    branches: of each teacher, from arrays of b rows to [b, …, own width].
    rows: arrays of B rows.
    blocks: of these rows.

  Returns:
    W is the widest; narrower ones are filled with zeros.
  """
  taken = jax.tree.map(lambda x: x[blocks.rows], rows)
  block = jax.eval_shape(lambda x: jax.tree.map(lambda a: a[0], x), taken)
  made = [jax.eval_shape(branch, block) for branch in branches]
  shape = (*made[0].shape[:-1], max(x.shape[-1] for x in made))
  nothing = jnp.zeros(shape, jnp.result_type(*(x.dtype for x in made)))

  def fitted(branch: Callable[[Any], Array], block: Any) -> Array:
    found = branch(block)
    return nothing.at[..., : found.shape[-1]].set(found)

  alike = [functools.partial(fitted, branch) for branch in branches]
  alike.append(lambda _: nothing)  # a block without rows

  def run(carry: None, block: tuple[Any, Array]) -> tuple[None, Array]:
    of_block, teacher = block
    return carry, jax.lax.switch(teacher, alike, of_block)

  _, found = jax.lax.scan(run, None, (taken, blocks.teacher))
  return found.reshape(-1, *shape[1:])[blocks.places]
