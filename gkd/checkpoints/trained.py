"""Parameters alone, out of whatever a user points at.

  params, about = load_trained("runs/sft", like=abstract_params)

`path` may be the folder of a run (its newest checkpoint), one checkpoint of it
(`runs/sft/checkpoints/00001000`), or what `models.save_params` wrote. The
optimizer's state of a training checkpoint is not read.
"""

import json
import os
from pathlib import Path
from typing import Any
from typing import NamedTuple

import jax
import orbax.checkpoint.experimental.v1 as ocp

from gkd import files
from gkd.checkpoints import arrays
from gkd.checkpoints import checksums
from gkd.checkpoints import models
from gkd.checkpoints import store
from gkd.checkpoints.checkpoint import CONTENT_KEY
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import Vocabulary
from gkd.types import Params
from gkd.types import UserError

# What a run says of itself, beside its checkpoints.
DESCRIPTION_FILE = "run.json"
_TYPES = {"contents": dict, "model": dict, "vocabulary_sha256": str}


class Located(NamedTuple):
  """One checkpoint on disk."""

  path: Path
  step: int | None  # of the run that saved it; None where it does not say
  # Of a saved model's parameters, so that the same ones saved anew count as the
  # same; of a run's checkpoint, all files together.
  sha256: str

  @property
  def is_model(self) -> bool:
    """Whether it is what `models.save_params` wrote, not part of a run."""
    return (self.path / models.METADATA_FILE).is_file()

  @property
  def home(self) -> Path:
    """Folder of all that belongs to it: its own, or that of its run."""
    return self.path if self.is_model else self.path.parent.parent

  def describe(self) -> dict[str, Any]:
    """What was written down of it: its metadata, or that of its run."""
    if self.is_model:
      return models.load_metadata(self.path)
    return describe_run(self.home)


def load_trained(
  path: str | os.PathLike, like: Any
) -> tuple[Params, dict[str, Any]]:
  """Parameters and what is known about them.

  Args:
    path: see the module.
    like: tree of `jax.ShapeDtypeStruct`s to check against.

  Raises:
    UserError: nothing there, damaged files, or leaves unlike `like`.
  """
  found = locate(path)
  path = found.path
  if found.is_model:
    return models.load_params(path, like)
  checksums.verify(path)
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = {
    "params": jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=device
      ),
      like,
    )
  }
  saved = ocp.metadata(path).metadata
  if "params" not in saved:
    raise UserError(
      f"{path} holds no parameters; give the folder of a run or of one"
      " checkpoint"
    )
  arrays.check_leaves(path, saved["params"], like["params"])
  context = ocp.Context()
  context.pytree.loading.partial_load = True
  with context:
    params = ocp.load(path, like)["params"]
  return params, found.describe()


def locate(path: str | os.PathLike, *, verify: bool = True) -> Located:
  """The one checkpoint that `load_trained` reads; of a run the newest.

  Args:
    path: see the module.
    verify: pass over damaged checkpoints of a run; without it the newest that
      was finished is taken and no file but its mark is read.

  Raises:
    UserError: nothing there, or a run without a sound checkpoint.
  """
  path = Path(path).expanduser().absolute()
  if (path / models.METADATA_FILE).is_file():
    about = models.load_metadata(path)
    content = about.get(CONTENT_KEY) or checksums.digest(path)
    return Located(path, about.get("step"), content)
  if (path / "checkpoints").is_dir():
    saved = store.Store(path / "checkpoints")
    step = saved.latest_step() if verify else max(saved.steps(), default=None)
    if step is None:
      raise UserError(
        f"run {path} has no finished checkpoint yet; train further or give"
        " another folder"
      )
    path = path / "checkpoints" / f"{step:08d}"
  elif not path.is_dir():
    raise UserError(
      f"no checkpoint at {path}: the folder does not exist; give the folder of"
      " a run or of one checkpoint"
    )
  step = int(path.name) if path.name.isdecimal() else None
  return Located(path, step, checksums.digest(path))


def write_description(
  model_dir: str | os.PathLike, about: dict[str, Any]
) -> None:
  """Writes down what a run's parameters belong to, such as the vocabulary."""
  text = json.dumps(about, indent=2, sort_keys=True) + "\n"
  files.write_text(Path(model_dir) / DESCRIPTION_FILE, text)


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
