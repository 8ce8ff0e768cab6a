"""Stages of a long job that are done once, over any number of calls."""

from collections.abc import Callable
import logging
from pathlib import Path
import time
from typing import Any

from gkd import files
from gkd.types import UserError

log = logging.getLogger("gkd")


# What a quickstart replaces in its folder, and so only in its own.
_REPLACED = ("data", "plots", "report.html", "results.json")


class Stages:
  """Runs `num_stages` named stages once, remembered in the folder.

  Raises:
    UserError: the folder holds stages of another `made_with`, the digest of
      everything that the stages depend on, or results of something else.
  """

  def __init__(self, folder: Path, made_with: str, num_stages: int):
    self._folder = folder / "stages"
    self._num_stages = num_stages
    self._seconds: list[float] = []
    mark = self._folder / "made_with"
    if mark.exists() and mark.read_text() != made_with:
      raise UserError(
        f"{folder} holds a quickstart with another configuration or teacher;"
        " give another --output, or delete the folder"
      )
    proof = f"no quickstart ({mark.relative_to(folder)}) made it"
    files.check_replaced(
      folder, _REPLACED, "--output", None if mark.exists() else proof
    )
    self._folder.mkdir(exist_ok=True)
    mark.write_text(made_with)

  def run(
    self, name: str, title: str, function: Callable[..., Any], *args: Any
  ) -> None:
    """Calls `function(*args)` unless this stage is done."""
    number = f"[{len(self._seconds) + 1}/{self._num_stages}]"
    mark = self._folder / f"{name}.json"
    if mark.exists():
      log.info("%s %s: done", number, title)
    else:
      log.info("%s %s", number, title)
      cut = mark.with_suffix(".cut")
      started = time.time() - (_seconds(cut) if cut.exists() else 0)
      end = cut
      try:
        function(*args)
        end = mark
      finally:
        files.write_json(end, {"seconds": time.time() - started})
    self._seconds.append(_seconds(mark))

  @property
  def total_seconds(self) -> float:
    """Time of the stages of this call, whenever they ran."""
    return sum(self._seconds)


def _seconds(file: Path) -> float:
  """Of a stage, over all its starts."""
  remedy = "delete it, and the stage runs again"
  content = files.read_json(file, {}, remedy)
  types = {"seconds": (float, int)}
  files.check_types(file, content, types, remedy, required=True)
  return content["seconds"]
