"""Where the numbers of a run go: metrics.jsonl, TensorBoard, sample dumps.

metrics.jsonl has one JSON object a line, `{"step": 20, "train/loss": 0.41, …}`.
A value that is not finite is written as null, because JSON has no NaN and most
readers refuse one; in a data frame it becomes NaN again. Each line
leaves the process as it is written, so a killed run keeps all it reported.

  writers = Writers(model_dir, resume_step=store.latest_step())
  writers.scalars(step, {"train/loss": 0.41})
  writers.close()
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import json
import math
import os
import re
import time
from typing import Any

from gkd import files

METRICS_FILE = "metrics.jsonl"


class Writers:
  """Appends what a run reports to files under `model_dir`.

  Only one process of a run may have one (process 0).
  """

  def __init__(
    self,
    model_dir: str,
    *,
    resume_step: int | None = None,
    partial: bool = False,
    pending_eval: bool = False,
    tensorboard: bool = True,
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
      tensorboard: also write TensorBoard events.
    """
    os.makedirs(model_dir, exist_ok=True)
    self._samples_dir = os.path.join(model_dir, "samples")
    path = os.path.join(model_dir, METRICS_FILE)
    last_step = -1 if resume_step is None else resume_step
    _edit_lines(
      path, lambda line: _standing(line, last_step, partial, pending_eval)
    )
    for directory in (
      self._samples_dir,
      os.path.join(model_dir, "predictions"),
    ):
      _drop_later_files(directory, last_step)
    # Open as long as the run; closed by `close`.
    self._metrics = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
    self._events = None
    if tensorboard:
      self._events = _Events(
        os.path.join(model_dir, "tensorboard"), last_step + 1
      )

  def scalars(self, step: int, values: Mapping[str, Any]) -> None:
    """Appends one line with the numbers of a step.

    Training and evaluation may each write a line for the same step; readers
    merge them by step.
    """
    line: dict[str, int | float | None] = {"step": int(step)}
    for name, value in values.items():
      number = float(value)
      line[name] = number if math.isfinite(number) else None
    self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
    self._metrics.flush()
    if self._events is not None:
      self._events.write(int(step), values)

  def sync(self) -> None:
    """Returns when every line is on the disk, not only with the system."""
    os.fsync(self._metrics.fileno())

  def samples(self, step: int, rows: Iterable[Mapping[str, Any]]) -> str:
    """Dumps sampled texts of one step; returns the file's path."""
    path = os.path.join(self._samples_dir, f"step_{int(step):08d}.jsonl")
    write_jsonl(path, rows)
    return path

  def close(self) -> None:
    self._metrics.close()
    if self._events is not None:
      self._events.close()


class _Events:
  """TensorBoard's file.

  Written here and now: tensorboardX's own writer hands events to a thread,
  which dies on a full disk and leaves the run waiting for ever.
  """

  def __init__(self, directory: str, first_step: int):
    """Opens a new file; events of earlier files from `first_step` are hidden.

    Args:
      directory: where.
      first_step: the next step that will be written.
    """
    # Imported here: it takes half a second, and reports never need it.
    from tensorboardX import event_file_writer
    from tensorboardX.proto import event_pb2
    from tensorboardX.summary import scalar

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
    if line.get(name) is not None
  }


def has_values(model_dir: str | os.PathLike, step: int, kind: str) -> bool:
  """Whether metrics.jsonl has values of a kind, such as "eval/", at a step."""
  return any(
    line["step"] == step and any(name.startswith(kind) for name in line)
    for line in _records(model_dir)
  )


def write_jsonl(path: str, rows: Iterable[Mapping[str, Any]]) -> None:
  """Writes one JSON object a line; the file appears whole or not at all."""
  os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
  lines = [json.dumps(_finite(row), ensure_ascii=False) + "\n" for row in rows]
  files.write_text(path, "".join(lines))


def _finite(value: Any) -> Any:
  """`value` with null in place of numbers that JSON does not have."""
  if isinstance(value, Mapping):
    return {key: _finite(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(item) for item in value]
  if hasattr(value, "tolist"):  # NumPy and JAX scalars and arrays
    return _finite(value.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def _edit_lines(
  path: str, edit: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> None:
  """Rewrites a file of lines as edited, None dropping one; torn ones go too."""
  lines, kept = _lines(path), []
  for line in lines:
    values = _parsed(line)
    edited = None if values is None else edit(values)
    if edited is not None:
      same = edited == values
      kept.append((line.rstrip("\n") if same else json.dumps(edited)) + "\n")
  if kept != lines:
    files.write_text(path, "".join(kept))


def _standing(
  line: dict[str, Any], last_step: int, partial: bool, pending_eval: bool
) -> dict[str, Any] | None:
  """What of a line will not be reported again; see `Writers`."""
  if line["step"] != last_step:
    return line if line["step"] < last_step else None
  if pending_eval:
    return None
  if not partial:
    return line
  values = {n: v for n, v in line.items() if n.startswith("eval/")}
  return {"step": last_step, **values} if values else None


def _lines(path: str) -> list[str]:
  if not os.path.exists(path):
    return []
  with open(path, encoding="utf-8", errors="replace") as file:
    return file.readlines()


def _records(model_dir: str | os.PathLike) -> list[dict[str, Any]]:
  lines = _lines(os.path.join(model_dir, METRICS_FILE))
  return [values for values in map(_parsed, lines) if values is not None]


def _parsed(line: str) -> dict[str, Any] | None:
  """A line with a step; None if it is torn or something else."""
  try:
    values = json.loads(line)
    return values if isinstance(values["step"], int) else None
  except (ValueError, KeyError, TypeError):
    return None


def _drop_later_files(directory: str, last_step: int) -> None:
  """Removes `…<step>.jsonl` of later steps, and what a kill left half-written.

  Such names come from `Writers.samples` and the evaluation's predictions.
  """
  if not os.path.isdir(directory):
    return
  for name in os.listdir(directory):
    match = re.search(
      r"(?:^\.?|[-_])(\d{8,})\.jsonl((?:\.[\d-]+)?\.partial|\.tmp)?$", name
    )
    if match and (match[2] or int(match[1]) > last_step):
      os.remove(os.path.join(directory, name))
