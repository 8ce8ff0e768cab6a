"""Checkpoints: a small adapter around orbax v1.

Orbax writes and reads the arrays, asynchronously and onto any sharding. A
flipped byte it loads without a word, so the store writes the sha256 of every
file after orbax has committed, and compares before it loads. Those hashes also
mark a checkpoint as finished: without them it is the rest of a killed run.
"""

from collections.abc import Mapping
from concurrent import futures
import contextlib
import json
import logging
import os
from pathlib import Path
import shutil
import time
from typing import Any

import orbax.checkpoint.experimental.v1 as ocp

from gkd import files
from gkd import processes
from gkd import watchdog
from gkd.checkpoints import checksums
from gkd.checkpoints.native import native_arrays
from gkd.checkpoints.retention import PreservationPolicy
from gkd.types import UserError

log = logging.getLogger("gkd")

# Not metadata.json, which marks a saved model.
METADATA_FILE = "notes.json"
_NOTES = {
  "ahead": {"checks": dict, "input_width": int, "metrics": dict},
  "chip_hours": float,
  "guard": {"history": list, "kl": list, "metric": str, "uses": float},
  "identity": str,
  "keep_before": int,
  "pending_eval": bool,
  "skipped_updates": int,
  "temporary": bool,
  "unwritten": {"means": dict, "seconds": dict},
}
_REMOVED = ".removed"  # ends the name of a checkpoint that is being deleted
# A wait that takes longer is logged.
_SILENT_SECONDS = 5.0


class Store:
  """The checkpoints of one run: `<directory>/<step>/`.

  Of several processes each writes and reads its own part of the arrays; the
  writer alone removes, marks and verifies. All see one file system.

  One save is under way at a time; a new one waits for the one before.

  Attributes:
    directory: of the checkpoints.
    policy: which ones stay.
    values: {step: value of `policy.metric`}, filled by the caller, read
      at the end of a save.
  """

  def __init__(
    self, directory: str | os.PathLike, policy: PreservationPolicy | None = None
  ):
    """Makes nothing yet; the folder appears with the first save."""
    self.directory = Path(directory).absolute()
    self.policy = policy or PreservationPolicy()
    self.values: dict[int, float] = {}
    self._pending: futures.Future | None = None
    self._pending_step = 0
    self._worker = futures.ThreadPoolExecutor(1, "checkpoint")

  def __enter__(self) -> "Store":
    return self

  def __exit__(self, kind, error, trace) -> None:
    """Completes the last save, unless a second ctrl-C cut everything short."""
    if kind is KeyboardInterrupt:
      return
    try:
      self.wait()
    except Exception as failure:
      if error is None:
        raise  # otherwise the first error is the one to tell
      log.warning("the last save failed as well: %s", failure)

  def save(
    self,
    step: int,
    state: Any,
    metadata: Mapping[str, Any] | None = None,
    *,
    temporary: bool = False,
  ) -> None:
    """Starts to save a tree of arrays; the caller may donate it at once.

    Args:
      step: that no sound checkpoint has.
      state: the tree.
      metadata: JSON to keep with it.
      temporary: this checkpoint goes when the next is complete, and pushes out
        none: a run that was interrupted ends with those of one that was not.
    """
    self.wait()
    path = self.folder(step)
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UserError(
        f"cannot write checkpoints to {self.directory} ({error.strerror}); give"
        " a folder that can be written"
      ) from error
    if processes.is_writer():
      self._make_room(path)
    processes.barrier("save")  # the writer's half of the last one is over, too
    text = json.dumps({**(metadata or {}), "temporary": temporary}, indent=2)
    response = native_arrays.save_async(path, state)
    self._pending_step = step
    self._pending = self._worker.submit(self._finish, step, response, text)

  def _make_room(self, path: Path) -> None:
    """Removes what stands in the place of a checkpoint, and leftovers.

    Those of killed runs, or a damaged checkpoint that a resumed run replaces.
    No save is under way, so at most one is ever left.
    """
    rests = [f for f in self._folders() if not checksums.is_marked(f)]
    rests += self.directory.glob("*.orbax-checkpoint-tmp*")
    for old in [path, *rests]:
      _remove(old)
    if path.exists():
      raise UserError(
        f"{path} is in the place of the checkpoint of step {int(path.name)} and"
        " cannot be removed; remove it by hand, or choose another folder"
      )

  def wait(self) -> None:
    """Blocks until the last save is complete; raises its error."""
    if self._pending is None:
      return
    started = time.monotonic()
    while not futures.wait([self._pending], _SILENT_SECONDS).done:
      log.info(
        "still saving the checkpoint of step %d, %.0f s so far",
        self._pending_step,
        time.monotonic() - started,
      )
    pending, self._pending = self._pending, None
    pending.result()

  def check(self) -> None:
    """Raises the error of the last save if it has ended; never waits."""
    if self._pending is not None and self._pending.done():
      self.wait()

  def folder(self, step: int) -> Path:
    """Of the checkpoint of a step."""
    return self.directory / f"{step:08d}"

  def steps(self) -> list[int]:
    """Steps of all finished checkpoints, ascending."""
    self.wait()
    return self._finished()

  def latest_step(self) -> int | None:
    """Newest step whose files are as written; None if nothing was saved.

    Damaged and unfinished checkpoints are passed over with a message.

    Raises:
      UserError: there are checkpoints but all are damaged.
    """
    steps = self.steps()
    unmarked = [f for f in self._folders() if not checksums.is_marked(f)]
    for folder in unmarked:
      log.warning(
        "passing over %s: a save was interrupted there, or its %s is missing",
        folder,
        checksums.HASHES_FILE,
      )
    for step in reversed(steps):
      try:
        checksums.verify(self.folder(step))
      except UserError as error:
        log.warning("%s; trying the one before", error)
        continue
      return step
    # A kill in the first save leaves one without a mark, see `save`; more that
    # are whole but for it were copied without their hashes.
    whole = [f for f in unmarked if (f / METADATA_FILE).is_file()]
    if not steps and len(whole) < 2:
      return None
    steps = sorted(int(folder.name) for folder in self._folders())
    raise UserError(
      f"all checkpoints in {self.directory} are damaged ({steps}); restore the"
      " files, or delete the folder to start again from step 0"
    )

  def newest(self, until: int) -> Path | None:
    """Folder of the newest checkpoint up to a step, but for temporary ones."""
    self.wait()
    lasting = self._lasting(until)
    return self.folder(lasting[-1]) if lasting else None

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
    return native_arrays.load(self.folder(step), like)

  def metadata(self, step: int) -> dict[str, Any]:
    """What was kept with the state of a step."""
    self.wait()
    self._verify(step)
    return self._metadata(step)

  def prune(self, step: int) -> None:
    """Removes those up to the newest sound one that the policy drops.

    And what a kill in an earlier call left of them. The newest up to the step
    `keep_before` in the notes of the sound one stays.
    """
    if not processes.is_writer():
      return
    for rest in self.directory.glob(f".*{_REMOVED}"):
      _delete(rest)
    lasting = self._lasting(step)
    kept = self.policy.choose(lasting, self.values) | {step}
    before = self._metadata(step).get("keep_before", 0)
    kept |= set([s for s in lasting if s <= before][-1:])
    for old in set(self._finished()) - kept:
      if old < step:
        _remove(self.folder(old))

  def _finish(
    self, step: int, response: ocp.AsyncResponse, metadata: str
  ) -> None:
    """Second half of a save, in the background."""
    response.result()
    if not processes.is_writer():
      return
    files.write_text(self.folder(step) / METADATA_FILE, metadata)
    checksums.write_hashes(self.folder(step))
    watchdog.of_process.saved = step
    for folder in self._folders():
      # Newer ones are damaged: the run resumed before them to come here.
      if int(folder.name) > step or not checksums.is_marked(folder):
        _remove(folder)
    self.prune(step)

  def _verify(self, step: int) -> None:
    if processes.is_writer():  # whose error ends the others
      checksums.verify(self.folder(step))

  def _lasting(self, until: int) -> list[int]:
    """Steps of finished checkpoints, but for temporary ones, ascending."""
    return [
      step
      for step in self._finished()
      if step <= until and not self._is_temporary(step)
    ]

  def _is_temporary(self, step: int) -> bool:
    """Whether a checkpoint is that of an interrupted run, as its notes say."""
    with contextlib.suppress(UserError):  # damaged, about to be passed over
      return bool(self._metadata(step).get("temporary"))
    return False

  def _metadata(self, step: int) -> dict[str, Any]:
    file = self.folder(step) / METADATA_FILE
    if not file.exists():
      return {}  # of an older version
    return files.read_json(file, _NOTES, "damaged checkpoint: restore it")

  def _folders(self) -> list[Path]:
    """Of all checkpoints, whatever state they are in; `7` is none of ours."""
    return [
      folder
      for folder in self.directory.glob("*")
      if folder.name.isdecimal() and folder == self.folder(int(folder.name))
    ]

  def _finished(self) -> list[int]:
    return sorted(
      int(folder.name)
      for folder in self._folders()
      if checksums.is_marked(folder)
    )


def _remove(folder: Path) -> None:
  """Takes the name away first: a half-deleted checkpoint is no checkpoint."""
  if not os.path.lexists(folder):
    return
  rest = folder.with_name(f".{folder.name}{_REMOVED}")
  _delete(rest)
  try:
    folder.rename(rest)
  except OSError as error:
    log.warning("cannot remove %s (%s)", folder, error.strerror)
  _delete(rest)


def _delete(rest: Path) -> None:
  """Deletes a folder, or a link to one; a warning says what stays."""
  try:
    if rest.is_symlink():
      rest.unlink()
    elif rest.exists():
      shutil.rmtree(rest)
  except OSError as error:
    log.warning("cannot remove %s (%s)", rest, error.strerror)
