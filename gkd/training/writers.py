"""Where the numbers of a run go: metrics.jsonl, TensorBoard, sample dumps.

metrics.jsonl has one JSON object a line, `{"step": 20, "train/loss": 0.41, …}`.
A value that is not finite is written as null, because JSON has no NaN and most
readers refuse one; in a data frame it becomes NaN again. Each line
is flushed as it is written, so a killed run keeps all it reported.

  writers = Writers(model_dir, resume_step=store.latest_step())
  writers.scalars(step, {"train/loss": 0.41})
  writers.close()
"""

from collections.abc import Iterable
from collections.abc import Mapping
import json
import math
import os
from typing import Any


class Writers:
  """Appends what a run reports to files under `model_dir`.

  Only one process of a run may have one (process 0).
  """

  def __init__(
    self,
    model_dir: str,
    *,
    resume_step: int | None = None,
    tensorboard: bool = True,
  ):
    """Opens the files, creating the directory.

    Args:
      model_dir: directory of the run.
      resume_step: the step that was restored. Lines and sample dumps of later
        steps are dropped, since those steps are about to be done again; None
        for a run that starts anew, which keeps nothing of an earlier one.
      tensorboard: also write TensorBoard events.
    """
    os.makedirs(model_dir, exist_ok=True)
    self._samples_dir = os.path.join(model_dir, "samples")
    path = os.path.join(model_dir, "metrics.jsonl")
    last_step = -1 if resume_step is None else resume_step
    _drop_later_lines(path, last_step)
    _drop_later_samples(self._samples_dir, last_step)
    # Open as long as the run; closed by `close`.
    self._metrics = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
    self._events = None
    if tensorboard:
      # Imported here: it takes half a second, and reports never need it.
      from tensorboardX import SummaryWriter

      # purge_step makes TensorBoard hide events of the steps done again.
      self._events = SummaryWriter(
        os.path.join(model_dir, "tensorboard"),
        purge_step=last_step + 1,
        flush_secs=20,
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
      if self._events is not None:
        self._events.add_scalar(name, number, int(step))
    self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
    self._metrics.flush()

  def samples(self, step: int, rows: Iterable[Mapping[str, Any]]) -> str:
    """Dumps sampled texts of one step; returns the file's path."""
    path = os.path.join(self._samples_dir, f"step_{int(step):08d}.jsonl")
    write_jsonl(path, rows)
    return path

  def close(self) -> None:
    self._metrics.close()
    if self._events is not None:
      self._events.close()


def write_jsonl(path: str, rows: Iterable[Mapping[str, Any]]) -> None:
  """Writes one JSON object a line; the file appears whole or not at all."""
  os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
  temporary = f"{path}.tmp"
  with open(temporary, "w", encoding="utf-8") as file:
    for row in rows:
      file.write(json.dumps(_finite(row), ensure_ascii=False) + "\n")
  os.replace(temporary, path)


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


def _drop_later_lines(path: str, last_step: int) -> None:
  """Keeps the lines up to `last_step`; a torn last line goes too."""
  if not os.path.exists(path):
    return
  with open(path, encoding="utf-8", errors="replace") as file:
    lines = file.read().splitlines()
  kept = [line for line in lines if _step_of(line) <= last_step]
  temporary = f"{path}.tmp"
  with open(temporary, "w", encoding="utf-8") as file:
    file.writelines(line + "\n" for line in kept)
  os.replace(temporary, path)


def _step_of(line: str) -> float:
  """The step of a line; infinity if the line cannot be read."""
  try:
    return int(json.loads(line)["step"])
  except (ValueError, KeyError, TypeError):
    return math.inf


def _drop_later_samples(directory: str, last_step: int) -> None:
  if not os.path.isdir(directory):
    return
  for name in os.listdir(directory):
    digits = name.removeprefix("step_").removesuffix(".jsonl")
    if digits.isdigit() and int(digits) > last_step:
      os.remove(os.path.join(directory, name))
