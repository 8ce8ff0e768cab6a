"""Stages of a long job that are done once, over any number of calls."""

from collections.abc import Callable
import json
import logging
from pathlib import Path
import time
from typing import Any

from gkd.types import UserError

log = logging.getLogger("gkd")


class Stages:
  """Runs named stages once; what is done is remembered in the folder."""

  def __init__(self, folder: Path, made_with: str, num_stages: int):
    """Opens the folder's memory.

    Args:
      folder: of the quickstart.
      made_with: digest of everything that the stages depend on.
      num_stages: of this call, to count them.

    Raises:
      UserError: the folder holds stages that were made with something else.
    """
    self._folder = folder / "stages"
    self._folder.mkdir(exist_ok=True)
    self._num_stages = num_stages
    self._seconds: list[float] = []
    mark = self._folder / "made_with"
    if mark.exists() and mark.read_text() != made_with:
      raise UserError(
        f"{folder} holds a quickstart with another configuration or teacher;"
        " give another --output, or delete the folder"
      )
    mark.write_text(made_with)

  def run(
    self, name: str, words: str, function: Callable[..., Any], *args: Any
  ) -> None:
    """Calls `function(*args)` unless this stage is done."""
    place = f"[{len(self._seconds) + 1}/{self._num_stages}]"
    mark = self._folder / f"{name}.json"
    if mark.exists():
      log.info("%s %s: done", place, words)
    else:
      log.info("%s %s", place, words)
      started = time.time()
      function(*args)
      text = json.dumps({"seconds": time.time() - started})
      partial = mark.with_suffix(".partial")
      partial.write_text(text)
      partial.replace(mark)
    self._seconds.append(json.loads(mark.read_text())["seconds"])

  @property
  def total_seconds(self) -> float:
    """Time of the stages of this call, whenever they ran."""
    return sum(self._seconds)
