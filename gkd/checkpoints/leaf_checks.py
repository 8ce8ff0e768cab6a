"""Whether the arrays of an opened T5 checkpoint are those of its config.

check_leaves(checkpoint)
"""

from collections.abc import Mapping

from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Leaf
from gkd.models import t5_params
from gkd.types import UserError

_MAX_LISTED = 4  # names of each kind in an error


def check_leaves(checkpoint: Checkpoint) -> None:
  """Every parameter of the config is there, with its shape, and no other.

  Optimizer slots are there for every parameter, if there are any.

  Raises:
    UserError: names what is missing, left over and misshapen, each with its
      shape.
  """
  config, found = checkpoint.config, checkpoint.leaves
  layers = config.num_encoder_layers + config.num_decoder_layers
  if layers > len(found):
    raise UserError(
      f"{checkpoint.path} should have {layers} layers, but holds {len(found)}"
      " parameters in all; give a whole checkpoint of one model"
    )
  table = t5_params.table(config)
  wanted = {name: row.shape for name, row in table.items()}
  missing = [f"{n} {wanted[n]}" for n in sorted(wanted.keys() - found.keys())]
  left_over = [
    f"{n} {found[n].shape}" for n in sorted(found.keys() - wanted.keys())
  ]
  misshapen = [
    f"{n} is {found[n].shape} instead of {wanted[n]}"
    for n in sorted(wanted.keys() & found.keys())
    if found[n].shape != wanted[n]
  ]
  kinds = {
    "missing": missing,
    "left over": left_over,
    "misshapen": misshapen,
    "of another type": _of_other_types(found),
    **_wrong_slots(checkpoint.slots, wanted),
  }
  wrong = [_listed(kind, names) for kind, names in kinds.items() if names]
  if wrong:
    raise UserError(
      f"{checkpoint.path} is not the T5 that it seems to be:"
      f" {'; '.join(wrong)}; give a whole checkpoint of one model"
    )


def _of_other_types(leaves: Mapping[str, Leaf]) -> list[str]:
  known = ("float32", "bfloat16")
  return [
    f"{name} {leaf.dtype}, expected float32 or bfloat16"
    for name, leaf in sorted(leaves.items())
    if leaf.dtype not in known
  ]


def _wrong_slots(
  slots: Mapping[str, Leaf], params: Mapping[str, tuple[int, ...]]
) -> dict[str, list[str]]:
  """What Adafactor would not have made for these parameters, listed by kind."""
  if not slots:
    return {}
  names = {f"{kind}/{name}" for kind in t5_params.SLOT_KINDS for name in params}
  missing = sorted(names - slots.keys())
  misshapen = []
  for name, shape in params.items():
    m, *v = (slots.get(f"{kind}/{name}") for kind in t5_params.SLOT_KINDS)
    if m is not None and m.shape not in (t5_params.UNUSED_SLOT, shape):
      misshapen.append(f"m/{name} is {m.shape} instead of {shape}")
    shapes = [leaf.shape for leaf in v if leaf is not None]
    if all(v) and not t5_params.is_second_moment(*shapes, shape):
      found = ", ".join(str(leaf.shape) for leaf in v)
      misshapen.append(f"v, v_row and v_col of {name} {shape} are {found}")
  return {
    "slots missing": missing,
    "slots left over": [
      f"{name} {slots[name].shape}" for name in sorted(slots.keys() - names)
    ],
    "slots misshapen": misshapen,
    "slots of another type": [
      f"{name} {leaf.dtype}, expected float32"
      for name, leaf in slots.items()
      if leaf.dtype != "float32"
    ],
  }


def _listed(kind: str, names: list[str]) -> str:
  more = len(names) - _MAX_LISTED
  listed = ", ".join(names[:_MAX_LISTED])
  return f"{len(names)} {kind}: {listed}" + (f" and {more} more" * (more > 0))
