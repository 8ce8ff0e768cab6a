"""Rotary positions in config.json of transformers, both ways.

Version 4 keeps rope_theta and rope_scaling, version 5 rope_parameters, with a
dictionary for each type of layers where a model has two.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkd import files
from gkd.checkpoints.hf import hf_config
from gkd.models.decoder_only import RopeScaling
from gkd.types import UserError

# Field of RopeScaling: theirs.
_FIELDS = {
  "factor": "factor",
  "low_frequency_factor": "low_freq_factor",
  "high_frequency_factor": "high_freq_factor",
  "original_length": "original_max_position_embeddings",
}
_KINDS = {"default": (), "linear": ("factor",), "llama3": tuple(_FIELDS)}
_NUMBER = (float, int)
_TYPES = {
  "rope_theta": _NUMBER,
  "rope_type": str,
  "type": str,
  **dict.fromkeys(_FIELDS.values(), _NUMBER),
}


def read(
  file: Path, saved: Mapping[str, Any], layers: str = ""
) -> tuple[float, RopeScaling | None]:
  """Base of the wavelengths, and how they are scaled.

  Args:
    file: config.json, for messages.
    saved: its content; rope_theta holds where nothing more special does.
    layers: the type of layers, where a model has two.

  Raises:
    UserError: positions that gkd does not compute.
  """
  rope = saved.get("rope_scaling") or saved.get("rope_parameters") or {}
  rope = rope.get(layers, rope)
  files.check_types(file, {"rope": rope}, {"rope": dict}, "download it again")
  files.check_types(file, rope, _TYPES, "download it again")
  hf_config.check_values(file, rope, {"partial_rotary_factor": (1,)})
  kind = rope.get("rope_type") or rope.get("type") or "default"
  names = _KINDS.get(kind)
  if names is None or any(rope.get(_FIELDS[name]) is None for name in names):
    raise UserError(
      f"{file} has the rotary positions {dict(rope)}; expected one of the types"
      f" {', '.join(_KINDS)}, with all its numbers"
    )
  theta = rope.get("rope_theta") or saved["rope_theta"]
  if not names:
    return theta, None
  return theta, RopeScaling(kind=kind, **{n: rope[_FIELDS[n]] for n in names})


def as_json(scaling: RopeScaling | None) -> dict[str, Any] | None:
  """rope_scaling, which both versions read."""
  if scaling is None:
    return None
  numbers = {_FIELDS[n]: getattr(scaling, n) for n in _KINDS[scaling.kind]}
  return {"rope_type": scaling.kind, **numbers}
