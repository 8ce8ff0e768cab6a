"""Stages of a long job that are done once, over any number of calls."""

from collections.abc import Callable
import json
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
    names = [name for name in _REPLACED if (folder / name).exists()]
    if names and not mark.exists():
      raise UserError(
        f"{folder} holds {names[0]}, which would be replaced, but no quickstart"
        f" ({mark.relative_to(folder)} is missing); give another --output"
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
      started = time.time()
      function(*args)
      files.write_json(mark, {"seconds": time.time() - started})
    self._seconds.append(json.loads(mark.read_text())["seconds"])

  @property
  def total_seconds(self) -> float:
    """Time of the stages of this call, whenever they ran."""
    return sum(self._seconds)
