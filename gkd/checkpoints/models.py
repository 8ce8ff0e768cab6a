"""A model for others to load: one checkpoint with a description.

save_params("teacher", params, {"model": …, "step": 100})
params, metadata = load_params("teacher", like=abstract_params)
"""

from collections.abc import Mapping
import json
import os
from pathlib import Path
import shutil
from typing import Any

import jax
import orbax.checkpoint.experimental.v1 as ocp

from gkd import files
from gkd.checkpoints import arrays
from gkd.checkpoints import checksums
from gkd.checkpoints.checkpoint import CONTENT_KEY
from gkd.checkpoints.checkpoint import content_sha256
from gkd.types import Params
from gkd.types import UserError

METADATA_FILE = "metadata.json"
# Of what is used again when a model is opened.
_TYPES = {
  "assumed": list,
  CONTENT_KEY: str,
  "hf": dict,
  "model": dict,
  "run": dict,
  "run_dir": str,
  "step": int,
  "vocabulary_sha256": str,
}


def save_params(
  path: str | os.PathLike, params: Params, metadata: Mapping[str, Any]
) -> None:
  """Saves a model's parameters with a description, whole or not at all.

  Args:
    path: folder to write; an older checkpoint there is replaced.
    params: tree of arrays.
    metadata: JSON: model config, vocabulary sha256, step, provenance. The
      sha256 of the parameters is added to it, as "content_sha256".
  """
  path = Path(path).absolute()
  if path.exists() and not checksums.is_marked(path):
    raise UserError(
      f"{path} exists and is not a checkpoint; choose another folder"
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name}.partial")
  aside = path.with_name(f".{path.name}.before")
  if aside.exists() and not path.exists():  # killed between the two renames
    os.rename(aside, path)
  shutil.rmtree(partial, ignore_errors=True)
  shutil.rmtree(aside, ignore_errors=True)
  try:
    arrays.save_async(partial, params).result()
    about = {**metadata, CONTENT_KEY: content_sha256(params)}
    text = json.dumps(about, indent=2, sort_keys=True)
    files.write_text(partial / METADATA_FILE, text)
    checksums.write_hashes(partial)
    if path.exists():
      os.rename(path, aside)
    os.rename(partial, path)
    shutil.rmtree(aside, ignore_errors=True)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def load_params(
  path: str | os.PathLike, like: Any = None
) -> tuple[Params, dict[str, Any]]:
  """Parameters and metadata of a model's checkpoint.

  Args:
    path: what `save_params` wrote.
    like: tree of arrays or `jax.ShapeDtypeStruct`s to check against and to take
      shardings from; without it the arrays come onto the first device.

  Raises:
    UserError: nothing there, not a checkpoint, damaged, or leaves unlike
      `like`.
  """
  metadata = load_metadata(path)
  path = Path(path).absolute()
  checksums.verify(path)
  if like is None:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=device
      ),
      ocp.metadata(path).metadata,
    )
  return arrays.load(path, like), metadata


def load_metadata(path: str | os.PathLike) -> dict[str, Any]:
  """The description of a model's checkpoint alone."""
  path = Path(path).absolute()
  if not path.is_dir():
    raise UserError(
      f"no checkpoint at {path}: the folder does not exist; give the folder"
      " that a run or `gkd convert` wrote"
    )
  file = path / METADATA_FILE
  if not checksums.is_marked(path) or not file.is_file():
    raise UserError(
      f"{path} is not a model checkpoint of gkd (no {METADATA_FILE} or"
      f" {checksums.HASHES_FILE}); give the folder that a run or `gkd convert`"
      " wrote"
    )
  return files.read_json(file, _TYPES, "damaged checkpoint: restore its files")
