"""Adafactor's slots between T5X's names and optax's state.

T5X keeps v_row, v_col, v and m for every parameter, (1,) where a kind is not
used. optax keeps the first three as trees like the parameters, with the same
shapes and values, so nothing is computed here: names are matched and checked.
Slots are {"v_row/<parameter>": array, …} on the outside. The step is no part of
them, see `LearningRateSchedule.initial_step`.

  opt_state = restore(opt_state, params, slots)
"""

from collections.abc import Iterable
from collections.abc import Mapping
import re
from typing import Any

import jax
import numpy as np
from optax import FactoredState

from gkd import trees
from gkd.errors import listed
from gkd.models.t5_params import SLOT_KINDS
from gkd.models.t5_params import UNUSED_SLOT
from gkd.types import Params
from gkd.types import UserError

_OPTAX_KINDS = tuple(kind for kind in SLOT_KINDS if kind != "m")


def restore(opt_state: Any, params: Params, slots: Mapping[str, Any]) -> Any:
  """The optimizer's state with the slots in it, laid out as it was.

  Args:
    opt_state: of an Adafactor of optax, before the first step.
    params: what it belongs to; arrays or `jax.ShapeDtypeStruct`s.
    slots: {"v/decoder/decoder_norm/scale": float32 array, …}, every kind for
      every parameter, T5X's unscanned shapes; m only of shape (1,).

  Raises:
    UserError: momentum, another `min_dim_size_to_factor`, names and shapes that
      are not those of the parameters, or slots that are not finite.
  """
  check_fits(opt_state, params, slots)
  broken = [n for n, x in slots.items() if not np.isfinite(np.asarray(x)).all()]
  if broken:
    raise UserError(
      f"slots of the checkpoint are not finite: {listed(broken)}; start from"
      " another one, or without RESTORE_OPTIMIZER"
    )

  def restored(kind: str, tree: Any) -> Any:
    flat = {
      # Copied, because the state is donated and the caller's arrays are not.
      name: _placed(
        np.asarray(slots[f"{kind}/{name}"], like.dtype), like.sharding
      ).copy()
      for name, like in trees.flatten(tree).items()
    }
    return trees.unflatten(flat)

  state = _factored(opt_state)
  state = state._replace(
    **{kind: restored(kind, getattr(state, kind)) for kind in _OPTAX_KINDS}
  )
  return jax.tree.map(
    lambda part: state if _is_factored(part) else part,
    opt_state,
    is_leaf=_is_factored,
  )


def check_fits(
  opt_state: Any, params: Params, slots: Mapping[str, Any]
) -> None:
  """Raises what `restore` would; all it reads is shapes."""
  state = _factored(opt_state)
  wanted = {
    f"{kind}/{name}": leaf
    for kind in _OPTAX_KINDS
    for name, leaf in trees.flatten(getattr(state, kind)).items()
  }
  _check(*map(_shapes, (trees.flatten(params), wanted, slots)))


def saved_names(names: Iterable[str]) -> dict[str, str]:
  """{name of a slot: name in `opt_state`}, sorted, of a run's checkpoint.

  Args:
    names: slash-separated, of the arrays below `opt_state`.

  Returns:
    v, v_col and v_row, where the run was one of Adafactor; else nothing.
  """
  pattern = re.compile(rf"(?:\d+/)*((?:{'|'.join(_OPTAX_KINDS)})/.+)")
  slots = {m[1]: name for name in names if (m := pattern.fullmatch(name))}
  return dict(sorted(slots.items()))


def unused_momenta(names: Iterable[str]) -> dict[str, np.ndarray]:
  """T5X's m without beta1, one for each v among the names of slots."""
  return {
    f"m/{name.removeprefix('v/')}": np.zeros(UNUSED_SLOT, np.float32)
    for name in names
    if name.startswith("v/")
  }


def _placed(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
  """The array, of which each process places its own part."""
  return jax.make_array_from_callback(
    array.shape, sharding, lambda index: array[index]
  )


def _check(
  params: Mapping[str, tuple[int, ...]],
  wanted: Mapping[str, tuple[int, ...]],
  slots: Mapping[str, tuple[int, ...]],
) -> None:
  """Compares {name: shape} of optax's slots (without m) with that of T5X's."""
  momenta = [
    name for name in slots if name[:2] == "m/" and slots[name] != UNUSED_SLOT
  ]
  if momenta:
    raise UserError(
      f"the slots have momentum ({listed(momenta)}), as T5X's Adafactor has"
      " with beta1, which ours does not; start with empty slots, without"
      " RESTORE_OPTIMIZER"
    )
  wanted = dict(wanted) | {f"m/{name}": UNUSED_SLOT for name in params}
  wrong = trees.shape_differences(wanted, slots)
  if not wrong["missing"] and not wrong["left over"]:
    _check_factoring(params, wanted, slots)
  if any(wrong.values()):
    raise UserError(
      f"the slots are not those of the student: {trees.in_one_line(wrong)};"
      " start from a checkpoint of this model, or without RESTORE_OPTIMIZER"
    )


def _check_factoring(
  params: Mapping[str, tuple[int, ...]],
  wanted: Mapping[str, tuple[int, ...]],
  slots: Mapping[str, tuple[int, ...]],
) -> None:
  """Names a `min_dim_size_to_factor` that is not that of the slots."""
  is_factored = {
    name: slots[f"v/{name}"] != shape
    for name, shape in params.items()
    if len(shape) > 1
  }
  differs = [
    name
    for name, factored in is_factored.items()
    if factored != (wanted[f"v/{name}"] != params[name])
  ]
  if not differs:
    return
  # The second largest dimension decides.
  second = {name: sorted(params[name])[-2] for name in is_factored}
  factored = [second[name] for name in second if is_factored[name]]
  whole = [second[name] for name in second if not is_factored[name]]
  low, high = max(whole, default=0) + 1, min(factored, default=None)
  if high is not None and low > high:
    return  # no number explains them: they are listed as misshapen
  fits = f"of {low} or more" if high is None else f"between {low} and {high}"
  raise UserError(
    f"the slots were made with a min_dim_size_to_factor {fits}, but this run"
    f" would factor other arrays ({listed(differs)}); set"
    f" optimizer.build.min_dim_size_to_factor = {high or low}"
  )


def _factored(opt_state: Any) -> FactoredState:
  for part in jax.tree.leaves(opt_state, is_leaf=_is_factored):
    if _is_factored(part):
      return part
  raise UserError(
    "the optimizer has no slots of Adafactor; set OPTIMIZER to 'adafactor'"
  )


def _is_factored(part: Any) -> bool:
  return isinstance(part, FactoredState)


def _shapes(named: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  return {name: tuple(array.shape) for name, array in named.items()}
