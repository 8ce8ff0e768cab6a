"""Where the numbers of a run go: metrics.jsonl, TensorBoard, sample dumps.

metrics.jsonl has one JSON object a line, `{"step": 20, "train/loss": 0.41, …}`.
A value that is not finite is written as null, because JSON has no NaN and most
readers refuse one; in a data frame it becomes NaN again. Each line leaves the
process as it is written, so a killed run keeps all it reported.

  writers = Writers(model_dir, resume_step=store.latest_step())
  writers.scalars(step, {"train/loss": 0.41})
  writers.close()
"""

from collections.abc import Iterable
from collections.abc import Mapping
import json
import logging
import math
import os
from pathlib import Path
import re
import sys
import time
from typing import Any

from gkd import files
from gkd.errors import UserError

log = logging.getLogger("gkd")

METRICS_FILE = "metrics.jsonl"
PREDICTIONS_FOLDER, SAMPLES_FOLDER = "predictions", "samples"
EVENTS_FOLDER = "tensorboard"
# What each record has, whichever version wrote it: by these a file is known.
_FIELDS_OF = {
  PREDICTIONS_FOLDER: {"prompt", "reference", "text", "prediction"},
  SAMPLES_FOLDER: {"prompt", "source", "text", "tokens"},
}
# `…<step>.jsonl` of dumps and predictions; a kill leaves partial ones.
_FILE_OF_STEP = re.compile(
  r"(?:^\.?|[-_])(\d{8,})\.jsonl((?:\.[\d-]+)?\.partial|\.tmp)?$"
)


class Writers:
  """Appends what a run reports to files under `model_dir`.

  Only one process of a run has one, `processes.is_writer`.
  """

  def __init__(
    self,
    model_dir: str | os.PathLike,
    *,
    resume_step: int | None = None,
    partial: bool = False,
    pending_eval: bool = False,
  ):
    """Opens the files, creating the directory.

    Args:
      model_dir: directory of the run.
      resume_step: the step that was restored. Lines, samples and predictions of
        later steps are dropped, since those steps are about to be done again;
        None for a run that starts anew, which keeps nothing of an earlier one.
      partial: the restored step lies between two reports. Training means in the
        line of that very step are of a run that ended there; they are dropped
        too, as its steps are part of the next report.
      pending_eval: the restored step is still to be reported and evaluated;
        its lines are dropped.
    """
    folder = Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    self._samples = folder / SAMPLES_FOLDER
    last_step = -1 if resume_step is None else resume_step
    if resume_step is not None and not (folder / METRICS_FILE).exists():
      log.warning(
        "%s is gone: it begins again after step %d, and the lines before are"
        " lost; stop and restore it if they are wanted",
        *(folder / METRICS_FILE, last_step),
      )
    _edit_lines(folder / METRICS_FILE, last_step, partial, pending_eval)
    for kind in _FIELDS_OF:
      _drop_later_files(folder / kind, last_step)
    # Open as long as the run; closed by `close`.
    self._metrics = (folder / METRICS_FILE).open("a", encoding="utf-8")
    self._events = _Events(str(folder / EVENTS_FOLDER), last_step + 1)

  def scalars(self, step: int, values: Mapping[str, Any]) -> None:
    """Appends one line with the numbers of a step.

    Training and evaluation may each write a line for the same step; readers
    merge them by step.
    """
    numbers = {name: float(value) for name, value in values.items()}
    self._metrics.write(_json_line({"step": int(step), **numbers}))
    self._metrics.flush()
    self._events.write(int(step), values)

  def sync(self) -> None:
    """Returns when every line is on the disk, not only with the system."""
    os.fsync(self._metrics.fileno())

  def samples(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Dumps sampled texts of one step; the file appears whole or not at all."""
    self._samples.mkdir(exist_ok=True)
    file = self._samples / f"step_{int(step):08d}.jsonl"
    files.write_text(file, "".join(map(_json_line, rows)))

  def close(self) -> None:
    self._metrics.close()
    self._events.close()


class NoWriters:
  """What the other processes of a run have in place of `Writers`."""

  def scalars(self, step: int, values: Mapping[str, Any]) -> None: ...

  def sync(self) -> None: ...

  def samples(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None: ...

  def close(self) -> None: ...


class _Events:
  """TensorBoard's file.

  Written here and now: tensorboardX's own writer hands events to a thread,
  which dies on a full disk and leaves the run waiting for ever.
  """

  def __init__(self, directory: str, first_step: int):
    """Opens a new file; events of older files from `first_step` are hidden."""
    # Imported here, as reports never need it, and without the torch that it
    # takes along where there is one, over a second for tensors of no run.
    hides_torch = "torch" not in sys.modules
    sys.modules.setdefault("torch", None)
    try:
      from tensorboardX import event_file_writer
      from tensorboardX.proto import event_pb2
      from tensorboardX.summary import scalar
    finally:
      if hides_torch:
        del sys.modules["torch"]
    # The run says itself where a number is not finite.
    logging.getLogger("tensorboardX").setLevel(logging.ERROR)
    os.makedirs(directory, exist_ok=True)
    self._event, self._scalar = event_pb2.Event, scalar
    self._file = event_file_writer.EventsWriter(
      os.path.join(directory, "events")
    )
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write(first_step, session_log=start)

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
      self._write(step, summary=self._scalar(name, float(value)))
    self._file.flush()

  def close(self) -> None:
    self._file.close()

  def _write(self, step: int, **content: Any) -> None:
    self._file.write_event(
      self._event(wall_time=time.time(), step=step, **content)
    )


def read_values(model_dir: str | os.PathLike, name: str) -> dict[int, float]:
  """{step: value} of one name in a run's metrics.jsonl; {} without a file."""
  return {
    line["step"]: line[name]
    for line in _records(model_dir)
    if isinstance(line.get(name), int | float)
  }


def has_values(model_dir: str | os.PathLike, step: int, kind: str) -> bool:
  """Whether metrics.jsonl has values of a kind, such as "eval/", at a step."""
  return any(
    line["step"] == step and any(name.startswith(kind) for name in line)
    for line in _records(model_dir)
  )


def _json_line(row: Mapping[str, Any]) -> str:
  """One line, with null in place of numbers that JSON does not have."""
  row = {
    name: None if isinstance(x, float) and not math.isfinite(x) else x
    for name, x in row.items()
  }
  return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _edit_lines(
  path: Path, last_step: int, partial: bool, pending_eval: bool
) -> None:
  """Drops what will be reported again, see `Writers`, and torn lines."""
  lines, kept = _lines(path), []
  for line in lines:
    values = _parsed(line)
    if values is None or values["step"] > last_step:
      continue
    if values["step"] == last_step and pending_eval:
      continue
    if values["step"] == last_step and partial:
      values = {
        name: value
        for name, value in values.items()
        if name == "step" or name.startswith(("eval/", "guard/"))
      }
      line = json.dumps(values) if len(values) > 1 else ""
    kept.append(line.rstrip("\n") + "\n" if line else "")
  if kept != lines:
    files.write_text(path, "".join(kept))


def _lines(path: Path) -> list[str]:
  if not path.exists():
    return []
  try:
    files.check_regular(path)
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}; move it away") from error
  with path.open(encoding="utf-8", errors="replace") as file:
    return file.readlines()


def _records(model_dir: str | os.PathLike) -> list[dict[str, Any]]:
  lines = _lines(Path(model_dir) / METRICS_FILE)
  return [values for values in map(_parsed, lines) if values is not None]


def _parsed(line: str) -> dict[str, Any] | None:
  """A line with a step; None if it is torn or something else."""
  try:
    values = json.loads(line)
    return values if isinstance(values["step"], int) else None
  except (ValueError, KeyError, TypeError, RecursionError):
    return None


def _drop_later_files(folder: Path, last_step: int) -> None:
  """Removes files of later steps, and what a kill left half-written."""
  for file in folder.glob("*"):
    match = _FILE_OF_STEP.search(file.name)
    if match is None:
      continue
    is_later = int(match[1]) > last_step and has_records(file)
    if match[2] or is_later:
      file.unlink()


def has_records(file: Path) -> bool:
  """Whether a file holds predictions or samples, as its folder's name says.

  A file of somebody else, `notes-20260101.jsonl`, is not to be removed.
  """
  try:
    files.check_regular(file)
    with file.open("rb") as lines:
      return json.loads(lines.readline()).keys() >= _FIELDS_OF[file.parent.name]
  except (OSError, ValueError, AttributeError, RecursionError):
    return False
