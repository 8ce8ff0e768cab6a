"""Where the checkpoint is: T5X's folders, and the rests of killed runs.

run/checkpoint_1100000/checkpoint          msgpack, beside one zarr per array
run/checkpoint_1100000/state/_METADATA     Orbax, what T5X writes today
run/checkpoint_1100000/state/checkpoint    Orbax, generations between
"""

import dataclasses
from pathlib import Path
import re

from gkd import files
from gkd.checkpoints import format_detection
from gkd.checkpoints import zarr_arrays
from gkd.types import UserError

_ARRAY_FOLDER = re.compile(r"(target|state\.param_states)\..+")
_MSGPACK = "checkpoint"
_COMMITTED = "commit_success.txt"
_TOP_METADATA = "_CHECKPOINT_METADATA"
_NOT_WHOLE = "half-written or not wholly copied; copy it again"


@dataclasses.dataclass(frozen=True)
class Location:
  """A T5X checkpoint.

  Attributes:
    path: the checkpoint, "…/checkpoint_1100000".
    index: the file with the names of all arrays, msgpack or Orbax's JSON; the
      arrays are in its folder.
    choice: a sentence if the path left a choice, else "".
  """

  path: Path
  index: Path
  choice: str = ""

  @property
  def is_orbax(self) -> bool:
    return self.index.name == zarr_arrays.INDEX_FILE


def find(path: Path) -> Location:
  """The checkpoint at a path: its folder, or, of a run's folder, the newest.

  Raises:
    UserError: there is none, or it is half-written.
  """
  location = _of_folder(path) or _newest(path)
  if location is not None:
    return location
  if any(_ARRAY_FOLDER.fullmatch(child.name) for child in path.iterdir()):
    raise UserError(
      f"{path} has arrays, but not the file {_MSGPACK!r} that T5X writes last:"
      f" it is {_NOT_WHOLE}"
    )
  raise UserError(
    f"{path} holds no T5X checkpoint: neither {_MSGPACK!r} nor"
    f" 'state/{zarr_arrays.INDEX_FILE}' nor folders checkpoint_<step>; give the"
    " folder of a checkpoint or of a run"
  )


def _of_folder(path: Path) -> Location | None:
  """The checkpoint that a folder is, or that its `state` is part of."""
  if path.name == "state" and format_detection.T5X_STEP.fullmatch(
    path.parent.name
  ):
    path = path.parent
  state = path / "state"
  for folder in (path, state):
    for index in (folder / zarr_arrays.INDEX_FILE, folder / _MSGPACK):
      if index.is_file():
        _check_committed(path)
        return Location(path, index)
  if state.is_dir() and format_detection.T5X_STEP.fullmatch(path.name):
    raise UserError(
      f"{state} has neither {zarr_arrays.INDEX_FILE!r} nor {_MSGPACK!r}: it is"
      f" {_NOT_WHOLE}"
    )
  return None


def _newest(path: Path) -> Location | None:
  """The newest whole checkpoint of a run's folder."""
  whole = format_detection.steps_within(path)
  if whole:
    newest = whole[max(whole)]
    choice = f"checkpoint: {newest.name}, the newest of {len(whole)} in {path}"
    return dataclasses.replace(find(newest), choice=choice)
  names = [child.name for child in path.iterdir()]
  if half_written := list(filter(format_detection.HALF_WRITTEN.match, names)):
    raise UserError(
      f"{path} holds only half-written checkpoints ({max(half_written)}, …);"
      " wait for the run, or give another checkpoint"
    )
  return None


def _check_committed(path: Path) -> None:
  """Orbax marks each finished folder; one unmarked among marked is not whole.

  Generations that mark nothing rename the folder when all is written.
  """
  folders = [f for f in (path, path / "state", path / "dataset") if f.is_dir()]
  unmarked = [f for f in folders if not (f / _COMMITTED).exists()]
  if unmarked and len(unmarked) < len(folders):
    raise UserError(
      f"{unmarked[0] / _COMMITTED} is missing, so the checkpoint is"
      f" {_NOT_WHOLE}"
    )
  top = path / _TOP_METADATA
  if top.exists():
    about = files.read_json(top, {}, "copy it again")
    if about.get("commit_timestamp_nsecs", 1) is None:
      raise UserError(
        f"{top} says that the checkpoint was never finished; give one that is"
        " whole"
      )
