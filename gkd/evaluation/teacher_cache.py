"""Remembers what is the same at every evaluation of a run."""

from collections.abc import Callable
from typing import Any

from gkd.types import LanguageModel
from gkd.types import Params


class TeacherCache:
  """Keeps what was made of one teacher with one seed.

  Its samples and its scores are the same at every step of a run. The last
  teacher is compared by identity: a new tree of parameters is a new teacher.
  """

  def __init__(self):
    self._owner: tuple[LanguageModel, Params, int] | None = None
    self._values: dict[str, Any] = {}

  def get(
    self,
    what: str,
    teacher: LanguageModel,
    params: Params,
    seed: int,
    make: Callable[[], Any],
  ) -> Any:
    """The value `what`, made at the first request for this teacher and seed."""
    owner = self._owner
    if (
      owner is None
      or owner[0] is not teacher
      or owner[1] is not params
      or owner[2] != seed
    ):
      self._values = {}
      self._owner = (teacher, params, seed)
    if what not in self._values:
      self._values[what] = make()
    return self._values[what]
