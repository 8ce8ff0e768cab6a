"""What a run says of itself: run.json and the vocabulary, in its folder."""

from collections.abc import Mapping
import json
import os
from pathlib import Path
from typing import Any

from gkd import files
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import Vocabulary
from gkd.types import UserError

DESCRIPTION_FILE = "run.json"
# The second is what older versions of gkd call it.
_INITIAL_STEP = ("initial_step", "first_step")
# In run.json and in the notes of each checkpoint: the run that made them.
IDENTITY = "identity"
_TYPES = {
  "contents": dict,
  "family": str,
  IDENTITY: str,
  "model": dict,
  "starts": list,
  "vocabulary_sha256": str,
}


def write_description(
  model_dir: str | os.PathLike, about: Mapping[str, Any]
) -> None:
  """Writes down what a run's parameters belong to, such as the vocabulary."""
  text = json.dumps(about, indent=2, sort_keys=True) + "\n"
  files.write_text(Path(model_dir) / DESCRIPTION_FILE, text)


def describe_run(model_dir: str | os.PathLike) -> dict[str, Any]:
  """What `write_description` wrote; {} for a run without it.

  Raises:
    UserError: the file is damaged.
  """
  file = Path(model_dir) / DESCRIPTION_FILE
  if not file.is_file():
    return {}
  remedy = (
    "it says what the run was made from: restore it, or choose another folder"
  )
  return files.read_json(file, _TYPES, remedy)


def initial_step(model_dir: str | os.PathLike) -> int:
  """Steps before the run, where it went on from a checkpoint; else 0.

  Raises:
    UserError: run.json does not say a number of steps.
  """
  described = describe_run(model_dir)
  name = next((n for n in _INITIAL_STEP if n in described), "")
  first = described.get(name, 0)
  if not isinstance(first, int) or isinstance(first, bool) or first < 0:
    raise UserError(
      f"damaged {Path(model_dir) / DESCRIPTION_FILE}: its {name} is"
      f" {first!r}; expected the number of steps before the run; restore that"
      " file"
    )
  return first


def check_identity(folder: Path, step: int, identity: str | None) -> None:
  """Compares a run's checkpoint with the place where it lies.

  Args:
    folder: `<run>/checkpoints/<step>`.
    step: in its state.
    identity: in its notes; None where an earlier version saved it.

  Raises:
    UserError: it is of another step than its name says, or of another run.
  """
  if folder.name.isdecimal() and int(folder.name) != step:
    raise UserError(
      f"{folder} holds the state after step {step}, not {int(folder.name)} as"
      " its name says; give each checkpoint the name of its step"
    )
  run = folder.parent.parent
  expected = describe_run(run).get(IDENTITY)
  if identity and expected and identity != expected:
    raise UserError(
      f"{folder} is a checkpoint of another run (identity {identity[:12]}) than"
      f" the {DESCRIPTION_FILE} of {run} describes ({expected[:12]}); move it"
      " back to its own run"
    )


def write_vocabulary(
  folder: str | os.PathLike, vocabulary: Vocabulary
) -> dict[str, Any]:
  """Keeps the vocabulary of a run or a model in its folder; returns its spec.

  `tokenizer_folder.load(folder)` reads it.
  """
  place = Path(folder) / tokenizer_folder.SPEC_FOLDER
  place.mkdir(parents=True, exist_ok=True)
  spec = vocabulary.save(place)
  text = json.dumps(spec, indent=2) + "\n"
  files.write_text(place / tokenizer_folder.SPEC_FILE, text)
  return spec
