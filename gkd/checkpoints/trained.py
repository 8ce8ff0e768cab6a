"""Parameters alone, out of whatever a user points at.

  params, about = load_trained("runs/sft", like=abstract_params)

`path` may be the folder of a run (its newest checkpoint), one checkpoint of it
(`runs/sft/checkpoints/00001000`), or what `store.save_params` wrote. The
optimizer's state of a training checkpoint is not read.
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint.experimental.v1 as ocp

from gkd.checkpoints import integrity
from gkd.checkpoints import store
from gkd.types import Params
from gkd.types import UserError

# What a run says of itself, beside its checkpoints.
DESCRIPTION_FILE = "run.json"


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
  path = Path(path).expanduser().absolute()
  if (path / store.METADATA_FILE).is_file():
    return store.load_params(path, like)
  if (path / "checkpoints").is_dir():
    step = store.Store(path / "checkpoints", keep=1).latest_step()
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
  integrity.verify(path)
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
  store.check_leaves(path, saved["params"], like["params"])
  context = ocp.Context()
  context.pytree.loading.partial_load = True
  with context:
    params = ocp.load(path, like)["params"]
  return params, describe_run(path.parent.parent)


def write_description(
  model_dir: str | os.PathLike, about: dict[str, Any]
) -> None:
  """Writes down what a run's parameters belong to, such as the vocabulary."""
  folder = Path(model_dir)
  partial = folder / f".{DESCRIPTION_FILE}"
  try:
    folder.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
    os.replace(partial, folder / DESCRIPTION_FILE)
  except OSError as error:
    raise UserError(
      f"cannot write to {folder} ({error.strerror}); give another folder"
    ) from error


def describe_run(model_dir: str | os.PathLike) -> dict[str, Any]:
  """What `write_description` wrote; {} for a run without it."""
  file = Path(model_dir) / DESCRIPTION_FILE
  return json.loads(file.read_text()) if file.is_file() else {}
