"""config.json of transformers: what all families have in it.

Each family reads and writes it in a module of its own, `hf_t5_config` and
`hf_decoder_config`; `hf_folder` chooses between them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkd import files
from gkd.text import tokenizer_folder
from gkd.types import UserError

FILE = tokenizer_folder.MODEL_FILE
GENERATION_FILE = tokenizer_folder.GENERATION_FILE

_TYPES = {"architectures": [str], "model_type": str}


def load(
  folder: Path, classes: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
  """config.json of a whole model with its head.

  Args:
    folder: that of a model.
    classes: {model_type: names of classes of transformers}, all that gkd reads.

  Raises:
    UserError: missing, damaged, or of another model.
  """
  file = folder / FILE
  if not file.is_file():
    raise UserError(
      f"{folder} has no {FILE}, which says what model it is; download it too"
    )
  saved = files.read_json(file, _TYPES)
  kind = saved.get("model_type")
  if kind not in classes:
    raise UserError(
      f"{file} is of a model of type {kind!r}; expected one of"
      f" {', '.join(classes)}"
    )
  for name in saved.get("architectures") or []:
    if name not in classes[kind]:
      raise UserError(
        f"{file} is of {name}; expected a whole model with its head"
        f" ({classes[kind][0]})"
      )
  if quantized := saved.get("quantization_config"):
    raise UserError(
      f"{file} has quantization_config {quantized!r}, which gkd does not"
      " compute; give the model without it"
    )
  return saved


def check_values(
  file: Path, saved: Mapping[str, Any], computed: Mapping[str, tuple[Any, ...]]
) -> None:
  """Refuses options under which gkd would compute something else.

  Args:
    file: that says them.
    saved: its content.
    computed: {option: its values that gkd computes}, beside an absent one.
  """
  for key, values in computed.items():
    if saved.get(key) not in (None, *values):
      raise UserError(
        f"{file} has {key} {saved[key]!r}, which gkd does not compute; give a"
        " model without it"
      )


def end_ids(eos_ids: tuple[int, ...]) -> int | list[int]:
  """eos_token_id as transformers writes it: one id, or a list of several."""
  return list(eos_ids) if len(eos_ids) > 1 else eos_ids[0]
