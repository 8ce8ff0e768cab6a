"""Our own layout: saved models, and the checkpoints of training runs.

A saved model is an orbax folder of float32 or bfloat16 arrays with
metadata.json (family, sizes, step, where it came from), sha256.json (the mark
that it is whole), and, where there are any, `slots/` (Adafactor's, another
orbax folder) and `vocabulary/`. Of a training checkpoint the parameters and
Adafactor's slots are read; what the run says of itself stands in its run.json.
"""

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any

from gkd import files
from gkd.checkpoints import checksums
from gkd.checkpoints import config_from_shapes
from gkd.checkpoints import zarr_arrays
from gkd.checkpoints.checkpoint import CONTENT_KEY
from gkd.checkpoints.checkpoint import LICENSE_KEY
from gkd.checkpoints.checkpoint import VOCABULARY_KEY
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.native import native_arrays
from gkd.checkpoints.native import run_folder
from gkd.checkpoints.store import METADATA_FILE as NOTES_FILE
from gkd.checkpoints.store import Store
from gkd.models import config_fields
from gkd.models import registry
from gkd.text.vocabulary import Vocabulary
from gkd.training import t5x_adafactor_state
from gkd.types import UserError

METADATA_FILE = "metadata.json"
_SLOTS_FOLDER = "slots"

# Fields of metadata.json that are read when a model is opened.
_TYPES = {
  "assumed": [str],
  CONTENT_KEY: str,
  "family": str,
  "hf": dict,
  LICENSE_KEY: str,
  "model": dict,
  "run": dict,
  "run_dir": str,
  "step": int,
  VOCABULARY_KEY: str,
}
# Written by each conversion, and so not carried along.
_OWN_KEYS = {
  "assumed",
  CONTENT_KEY,
  "converted_from",
  "family",
  "model",
  "step",
}


def open_checkpoint(
  path: Path, given: Mapping[str, Any], *, verify: bool = True
) -> Checkpoint:
  """A run (its newest sound checkpoint), one checkpoint of it, or a model.

  See `source.open_checkpoint`. Hashes are verified before anything is read.
  """
  folder = _checkpoint_folder(path, verify)
  if verify:
    checksums.verify(folder)
  arrays = zarr_arrays.open_tree(folder / native_arrays.STATE)
  metadata: dict[str, Any] = {CONTENT_KEY: checksums.digest(folder)}
  file = folder / METADATA_FILE
  if file.is_file():
    home, layout = folder, "model saved by gkd"
    saved = files.read_json(file, _TYPES, "damaged checkpoint: restore it")
    leaves = arrays
    slots, step = _model_slots(folder), saved.get("step")
    metadata |= saved
  else:
    home, layout = folder.parent.parent, "checkpoint of a gkd run"
    saved = run_folder.describe_run(home)
    _check_identity(folder, arrays.get("step"))
    leaves = _below(arrays, "params/")
    slots = _run_slots(_below(arrays, "opt_state/"))
    step = _absolute_step(folder)
    if saved:
      metadata |= {"run": saved, "run_dir": str(home)}
      metadata[VOCABULARY_KEY] = saved.get(VOCABULARY_KEY)
  if not leaves:
    raise UserError(
      f"{folder} holds no parameters; give the folder of a run, of one"
      " checkpoint or of a saved model"
    )
  config, assumed = _config(folder, leaves, saved, given)
  return Checkpoint(
    path=folder,
    home=home,
    format="gkd",
    layout=f"{layout} (orbax)",
    family=registry.canonical(saved.get("family") or registry.T5),
    config=config,
    leaves=leaves,
    step=step,
    slots=slots,
    assumed=(*(saved.get("assumed") or ()), *assumed),
    metadata=metadata,
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
  if checkpoint.slots:
    folder = path / _SLOTS_FOLDER
    folder.mkdir()
    native_arrays.write_arrays(folder, checkpoint.slots)
  metadata = {
    **{k: v for k, v in checkpoint.metadata.items() if k not in _OWN_KEYS},
    **description(checkpoint.config),
    "converted_from": {
      "path": str(checkpoint.path),
      "format": checkpoint.format,
      "layout": checkpoint.layout,
    },
    "assumed": list(checkpoint.assumed),
  }
  if checkpoint.step is not None:
    metadata["step"] = checkpoint.step
  if vocabulary is not None:
    spec = run_folder.write_vocabulary(path, vocabulary)
    metadata |= {"vocabulary": spec, VOCABULARY_KEY: spec["sha256"]}
  write_model(path, checkpoint.leaves, metadata)


def write_model(
  path: Path, leaves: Mapping[str, Leaf], metadata: Mapping[str, Any]
) -> None:
  """Writes parameters of any family and a description of the model.

  Args:
    path: an existing folder.
    leaves: {slash-separated name: parameter}.
    metadata: JSON: `description` of the model's config, the vocabulary's
      sha256, step, provenance. "content_sha256" is added to it.
  """
  content = {CONTENT_KEY: native_arrays.write_arrays(path, leaves)}
  files.write_json(path / METADATA_FILE, {**metadata, **content})
  checksums.write_hashes(path)


def description(config: Any) -> dict[str, Any]:
  """What run.json and metadata.json say of a model: its family and config."""
  return {
    "family": registry.family_of(config),
    "model": dataclasses.asdict(config),
  }


def _checkpoint_folder(path: Path, verify: bool) -> Path:
  """The folder of the one checkpoint that is meant; of a run the newest."""
  if not (path / "checkpoints").is_dir():
    return path
  saved = Store(path / "checkpoints")
  step = saved.latest_step() if verify else max(saved.steps(), default=None)
  if step is None:
    raise UserError(
      f"run {path} has no finished checkpoint yet; train further or give"
      " another folder"
    )
  return path / "checkpoints" / f"{step:08d}"


def _below(arrays: Mapping[str, Leaf], prefix: str) -> dict[str, Leaf]:
  """Arrays whose names have a prefix, without it."""
  return {
    name.removeprefix(prefix): leaf
    for name, leaf in arrays.items()
    if name.startswith(prefix)
  }


def _check_identity(folder: Path, step: Leaf | None) -> None:
  """Refuses a run's checkpoint under a wrong name or in another run."""
  notes = folder / NOTES_FILE
  identity = None
  if notes.is_file():
    remedy = "damaged checkpoint: restore it"
    about = files.read_json(notes, {run_folder.IDENTITY: str}, remedy)
    identity = about.get(run_folder.IDENTITY)
  if step is not None:
    run_folder.check_identity(folder, int(step.read()), identity)


def _absolute_step(path: Path) -> int | None:
  """The step with those before the run, where it went on from a checkpoint."""
  first = run_folder.initial_step(path.parent.parent)
  return first + int(path.name) if path.name.isdecimal() else None


def _model_slots(path: Path) -> dict[str, Leaf]:
  folder = path / _SLOTS_FOLDER / native_arrays.STATE
  return zarr_arrays.open_tree(folder) if folder.parent.is_dir() else {}


def _run_slots(stored: Mapping[str, Leaf]) -> dict[str, Leaf]:
  """T5X's slots of a run's checkpoint; {} for another rule than Adafactor."""
  saved = t5x_adafactor_state.saved_names(stored)
  slots = {name: stored[where] for name, where in saved.items()}
  for name, zeros in t5x_adafactor_state.unused_momenta(saved).items():
    slots[name] = Leaf(zeros.shape, "float32", zeros.copy)
  return dict(sorted(slots.items()))


def _config(
  path: Path,
  leaves: Mapping[str, Leaf],
  described: Mapping[str, Any],
  given: Mapping[str, Any],
) -> tuple[Any, tuple[str, ...]]:
  """The saved config; of older T5s, which have none, that of the shapes."""
  family = described.get("family") or registry.T5
  saved = described.get("model")
  if saved is None and family == registry.T5:
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    return config_from_shapes.config_of(shapes, given)
  config = registry.config_of(family, saved or {})
  if registry.layout_of(config) is None:
    if given:
      raise UserError(
        f"{', '.join(given)} cannot be set: {path} is of the model family"
        f" {family!r}, which is not T5; leave it out"
      )
    return config, ()
  return config_fields.with_overrides(config, given, path), ()
