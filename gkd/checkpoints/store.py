"""Checkpoints: a small adapter around orbax v1.

Orbax writes and reads the arrays, asynchronously and onto any sharding. A
flipped byte it loads without a word, so the store writes the sha256 of every
file after orbax has committed, and compares before it loads. Those hashes also
mark a checkpoint as finished: without them it is the rest of a killed run.

  store = Store("run/checkpoints", keep=3)
  store.save(100, state)  # returns at once
  state = store.restore(store.latest_step(), like=state)

Models for others to load are single checkpoints with a description:

  save_params("teacher", params, {"model": …, "step": 100})
  params, metadata = load_params("teacher", like=abstract_params)
"""

from collections.abc import Mapping
from concurrent import futures
import json
import logging
import os
from pathlib import Path
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp

from gkd.checkpoints import integrity
from gkd.types import Params
from gkd.types import UserError

log = logging.getLogger("gkd")

METADATA_FILE = "metadata.json"
_MAX_LISTED = 5  # leaves named in an error


class Store:
  """The checkpoints of one run: `<directory>/<step>/`.

  One save is under way at a time; a new one waits for the one before.
  """

  def __init__(self, directory: str | os.PathLike, keep: int):
    """Makes nothing yet; the folder appears with the first save.

    Args:
      directory: folder of the run's checkpoints.
      keep: how many of the latest to keep, at least 1.
    """
    if keep < 1:
      raise UserError(f"keep is {keep}; keep 1 checkpoint or more")
    self.directory = Path(directory).absolute()
    self.keep = keep
    self._pending: futures.Future | None = None
    self._worker = futures.ThreadPoolExecutor(1, "checkpoint")
    self._verified: set[int] = set()

  def save(self, step: int, state: Any) -> None:
    """Starts to save a tree of arrays; the caller may donate it at once."""
    self.wait()
    path = self._path(step)
    _make_folder(self.directory)
    # Rests of a killed run, or a damaged one that a resumed run replaces.
    for old in [path, *self.directory.glob("*.orbax-checkpoint-tmp*")]:
      shutil.rmtree(old, ignore_errors=True)
    response = ocp.save_async(path, _without_numpy_scalars(state))
    self._pending = self._worker.submit(self._finish, step, response)

  def wait(self) -> None:
    """Blocks until the last save is complete; raises what went wrong in it."""
    if self._pending is not None:
      pending, self._pending = self._pending, None
      pending.result()

  def steps(self) -> list[int]:
    """Steps of all finished checkpoints, ascending."""
    self.wait()
    return self._finished()

  def latest_step(self) -> int | None:
    """Newest step whose files are as written; None if nothing was saved.

    Damaged checkpoints are passed over with a message.

    Raises:
      UserError: there are checkpoints but all are damaged.
    """
    steps = self.steps()
    for step in reversed(steps):
      try:
        self._verify(step)
      except UserError as error:
        log.warning("%s; trying the one before", error)
        continue
      return step
    if not steps:
      return None
    raise UserError(
      f"all checkpoints in {self.directory} are damaged ({steps}); restore the"
      " files, or delete the folder to start again from step 0"
    )

  def restore(self, step: int, like: Any) -> Any:
    """The tree saved at a step.

    Args:
      step: one of `steps()`.
      like: tree of arrays or `jax.ShapeDtypeStruct`s: the structure, and the
        shardings to restore onto (any number of devices).

    Raises:
      UserError: no such checkpoint, damaged files, or leaves unlike `like`.
    """
    self.wait()
    self._verify(step)
    return _load(self._path(step), like)

  def _path(self, step: int) -> Path:
    return self.directory / f"{step:08d}"

  def _verify(self, step: int) -> None:
    if step not in self._verified:
      integrity.verify(self._path(step))
      self._verified.add(step)

  def _finish(self, step: int, response: ocp.AsyncResponse) -> None:
    """Second half of a save, in the background."""
    response.result()
    self._verified.discard(step)
    integrity.write_hashes(self._path(step))
    finished = self._finished()
    kept = [s for s in finished if s <= step][-self.keep :]
    # Newer ones are damaged: the run resumed before them to come here.
    for old in set(finished) - set(kept):
      # The mark goes first: a half-deleted checkpoint is no checkpoint.
      (self._path(old) / integrity.HASHES_FILE).unlink()
      shutil.rmtree(self._path(old), ignore_errors=True)

  def _finished(self) -> list[int]:
    return sorted(
      int(folder.name)
      for folder in self.directory.glob("*")
      if folder.name.isdecimal() and integrity.is_marked(folder)
    )


def save_params(
  path: str | os.PathLike, params: Params, metadata: Mapping[str, Any]
) -> None:
  """Saves a model's parameters with a description, whole or not at all.

  Args:
    path: folder to write; an older checkpoint there is replaced.
    params: tree of arrays.
    metadata: JSON: model config, vocabulary sha256, step, provenance.
  """
  path = Path(path).absolute()
  if path.exists() and not integrity.is_marked(path):
    raise UserError(
      f"{path} exists and is not a checkpoint; choose another folder"
    )
  _make_folder(path.parent)
  partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
  shutil.rmtree(partial, ignore_errors=True)
  try:
    ocp.save(partial, _without_numpy_scalars(params))
    (partial / METADATA_FILE).write_text(
      json.dumps(metadata, indent=2, sort_keys=True), "utf-8"
    )
    integrity.write_hashes(partial)
    shutil.rmtree(path, ignore_errors=True)
    os.rename(partial, path)
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
  integrity.verify(path)
  if like is None:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=device
      ),
      ocp.metadata(path).metadata,
    )
  return _load(path, like), metadata


def load_metadata(path: str | os.PathLike) -> dict[str, Any]:
  """The description of a model's checkpoint alone."""
  path = Path(path).absolute()
  if not path.is_dir():
    raise UserError(
      f"no checkpoint at {path}: the folder does not exist; give the folder"
      " that a run or `gkd convert` wrote"
    )
  file = path / METADATA_FILE
  if not integrity.is_marked(path) or not file.is_file():
    raise UserError(
      f"{path} is not a model checkpoint of gkd (no {METADATA_FILE} or"
      f" {integrity.HASHES_FILE}); give the folder that a run or `gkd convert`"
      " wrote"
    )
  return json.loads(file.read_text("utf-8"))


def check_leaves(path: Path, saved: Any, like: Any) -> None:
  """Names every difference; orbax itself would cast or fill silently.

  Args:
    path: of the checkpoint, for the message.
    saved: tree of orbax's metadata, or a part of it.
    like: tree of arrays or `jax.ShapeDtypeStruct`s that is wanted.

  Raises:
    UserError: names, shapes or types differ.
  """
  found, wanted = _described(saved), _described(like)
  wrong = [
    f"{name}: saved {found.get(name, 'nothing')}, expected"
    f" {wanted.get(name, 'nothing')}"
    for name in sorted(found.keys() | wanted.keys())
    if found.get(name) != wanted.get(name)
  ]
  if wrong:
    more = len(wrong) - _MAX_LISTED
    listed = "; ".join(wrong[:_MAX_LISTED]) + (f"; {more} more" * (more > 0))
    raise UserError(
      f"checkpoint {path} does not fit the model: {listed}; use the model that"
      " it was saved with"
    )


def _make_folder(path: Path) -> None:
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f"cannot write checkpoints to {path} ({error.strerror}); give a folder"
      " that can be written"
    ) from error


def _without_numpy_scalars(tree: Any) -> Any:
  """NumPy scalars as arrays of rank 0: orbax rejects them as leaves."""
  return jax.tree.map(
    lambda x: np.asarray(x) if isinstance(x, np.generic) else x, tree
  )


def _load(path: Path, like: Any) -> Any:
  """Restores onto `like` after a check of names, shapes and types."""
  like = jax.tree.map(_abstract, _without_numpy_scalars(like))
  check_leaves(path, ocp.metadata(path).metadata, like)
  return ocp.load(path, like)


def _abstract(leaf: Any) -> Any:
  """What orbax is asked for: never an array's content."""
  if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
  if isinstance(leaf, jax.Array):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
  return leaf


def _described(tree: Any) -> dict[str, str]:
  """{"params/encoder/…/kernel": "(4, 8) float32"} of arrays or metadata."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    "/".join(_entry(e) for e in path): _shape_and_type(leaf)
    for path, leaf in leaves
  }


def _entry(entry: Any) -> str:
  """One step of a tree path; orbax keeps fields of records as dict keys."""
  for name in ("key", "name", "idx"):
    if (value := getattr(entry, name, None)) is not None:
      return str(value)
  return str(entry)


def _shape_and_type(leaf: Any) -> str:
  dtype = getattr(leaf, "dtype", None)
  if dtype is None:
    return "a number"
  return f"{tuple(getattr(leaf, 'shape', ()))} {dtype}"
