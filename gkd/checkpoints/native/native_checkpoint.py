"""Our own layout: saved models, and the checkpoints of training runs.

A saved model is an orbax folder of float32 or bfloat16 arrays with
metadata.json (sizes, step, where it came from), sha256.json (the mark that it
is whole), and, where there are any, `slots/` (Adafactor's, another orbax
folder) and `vocabulary/`. Of a training checkpoint the parameters and
Adafactor's slots are read; what the run says of itself stands in its run.json.

  checkpoint = open_checkpoint(Path("runs/gkd"), {})
  write(Path("model"), checkpoint)
"""

from collections.abc import Mapping
import dataclasses
import json
from pathlib import Path
from typing import Any

from gkd import files
from gkd.checkpoints import checksums
from gkd.checkpoints import config_from_shapes
from gkd.checkpoints import models
from gkd.checkpoints import one_by_one
from gkd.checkpoints import trained
from gkd.checkpoints.checkpoint import CONTENT_KEY
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import ContentHash
from gkd.checkpoints.checkpoint import Leaf
from gkd.models.t5 import T5Config
from gkd.text.vocabulary import Vocabulary
from gkd.training import t5x_adafactor_state
from gkd.types import UserError

SLOTS_FOLDER = "slots"

# Of the program that runs the model, not of its parameters.
_FREE = ("dropout_rate", "dtype")
# Written anew with each conversion, and so not carried along.
_OWN_KEYS = (
  "assumed",
  "content_sha256",
  "converted_from",
  "model",
  "step",
)


def open_checkpoint(path: Path, given: Mapping[str, Any]) -> Checkpoint:
  """A run (its newest sound checkpoint), one checkpoint of it, or a model.

  Every byte is compared with its hash before anything else is read.

  Args:
    path: folder.
    given: fields of T5Config; dropout_rate and dtype replace what was saved,
      others must agree with it.

  Raises:
    UserError: nothing there, damaged, or `given` contradicts it.
  """
  found = trained.locate(path)
  checksums.verify(found.path)
  if found.is_model:
    return _open_model(found, given)
  run_dir, described = found.home, found.describe()
  leaves = _leaves(found.path, "params")
  config, assumed = _config(found.path, leaves, described.get("model"), given)
  about = {"run": described, "run_dir": str(run_dir)} if described else {}
  if made_with := described.get("vocabulary_sha256"):
    about["vocabulary_sha256"] = made_with
  return Checkpoint(
    path=found.path,
    home=found.home,
    format="gkd",
    layout="checkpoint of a gkd run (orbax)",
    config=config,
    leaves=leaves,
    step=_absolute(found.step, run_dir, described),
    slots=_run_slots(found.path),
    assumed=assumed,
    metadata=about,
  )


def write(
  path: Path, checkpoint: Checkpoint, *, vocabulary: Vocabulary | None = None
) -> None:
  """Writes a saved model, array by array.

  Args:
    path: an existing empty folder.
    checkpoint: what to write; its slots too, if it has any.
    vocabulary: kept beside the parameters.
  """
  content = ContentHash()
  _write_orbax(path, checkpoint.leaves, content)
  if checkpoint.slots:
    folder = path / SLOTS_FOLDER
    folder.mkdir()
    _write_orbax(folder, checkpoint.slots)
  kept = {k: v for k, v in checkpoint.metadata.items() if k not in _OWN_KEYS}
  metadata = kept | {
    "model": dataclasses.asdict(checkpoint.config),
    "converted_from": {
      "path": str(checkpoint.path),
      "format": checkpoint.format,
      "layout": checkpoint.layout,
    },
    "assumed": list(checkpoint.assumed),
    CONTENT_KEY: content.hexdigest(),
  }
  if checkpoint.step is not None:
    metadata["step"] = checkpoint.step
  if vocabulary is not None:
    spec = trained.write_vocabulary(path, vocabulary)
    metadata |= {"vocabulary": spec, "vocabulary_sha256": spec["sha256"]}
  text = json.dumps(metadata, indent=2, sort_keys=True)
  files.write_text(path / models.METADATA_FILE, text)
  checksums.write_hashes(path)


def _open_model(found: trained.Located, given: Mapping[str, Any]) -> Checkpoint:
  about = models.load_metadata(found.path)
  leaves = _leaves(found.path)
  config, assumed = _config(found.path, leaves, about.get("model"), given)
  slots = found.path / SLOTS_FOLDER
  return Checkpoint(
    path=found.path,
    format="gkd",
    layout="model saved by gkd (orbax)",
    config=config,
    leaves=leaves,
    step=found.step,
    slots=_leaves(slots) if slots.is_dir() else {},
    assumed=(*about.get("assumed", ()), *assumed),
    metadata=about,
  )


def _absolute(
  step: int | None, run_dir: Path, described: Mapping[str, Any]
) -> int | None:
  """The step with those before the run, where it went on from a checkpoint."""
  first = described.get("first_step", 0)
  if not isinstance(first, int) or isinstance(first, bool) or first < 0:
    raise UserError(
      f"damaged {run_dir / trained.DESCRIPTION_FILE}: its first_step is"
      f" {first!r}; expected the number of steps before the run; restore that"
      " file"
    )
  return None if step is None else first + step


def _leaves(path: Path, below: str = "") -> dict[str, Leaf]:
  stored = one_by_one.open_arrays(path, below)
  if not stored:
    raise UserError(
      f"{path} holds no parameters; give the folder of a run, of one checkpoint"
      " or of a saved model"
    )
  return {
    name: Leaf(array.shape, array.dtype, array.read)
    for name, array in stored.items()
  }


def _run_slots(path: Path) -> dict[str, Leaf]:
  """T5X's slots of a run's checkpoint; {} for another rule than Adafactor."""
  stored = one_by_one.open_arrays(path, "opt_state")
  saved = t5x_adafactor_state.saved_names(stored)
  slots = {
    name: Leaf(stored[where].shape, stored[where].dtype, stored[where].read)
    for name, where in saved.items()
  }
  for name, zeros in t5x_adafactor_state.unused_momenta(saved).items():
    slots[name] = Leaf(zeros.shape, "float32", zeros.copy)
  return dict(sorted(slots.items()))


def _config(
  path: Path,
  leaves: Mapping[str, Leaf],
  saved: Mapping[str, Any] | None,
  given: Mapping[str, Any],
) -> tuple[T5Config, tuple[str, ...]]:
  """The saved config; of older models, which have none, that of the shapes."""
  given = {name: value for name, value in given.items() if value is not None}
  if saved is None:
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    return config_from_shapes.config_of(shapes, given)
  config = T5Config.from_size(saved)
  wanted = T5Config.from_size({**saved, **given})
  for name in given:
    was, is_given = getattr(config, name), getattr(wanted, name)
    if name not in _FREE and was != is_given:
      raise UserError(
        f"{name}={is_given!r} was given, but {path} was saved with {was!r};"
        " leave it out or give the right checkpoint"
      )
  return wanted, ()


def _write_orbax(
  folder: Path,
  leaves: Mapping[str, Leaf],
  content: ContentHash | None = None,
) -> None:
  """Into a folder that exists, where orbax wants to make its own."""
  made = folder / "orbax"
  one_by_one.write_arrays(made, leaves, content)
  for entry in sorted(made.iterdir()):
    entry.rename(folder / entry.name)
  made.rmdir()
