"""Remembers what is the same at every evaluation of a run."""

from collections.abc import Callable
from typing import Any

from gkd.types import LanguageModel
from gkd.types import Params


class TeacherMemo:
  """Keeps what depends on the teacher alone, for one teacher and seed.

  Its samples and scores are the same at every step of a run. The last teacher
  is compared by identity: a new tree of parameters is a new teacher.
  """

  def __init__(self):
    self._owner: tuple[Any, Any, int] | None = None
    self._values: dict[str, Any] = {}

  def get(
    self,
    name: str,
    teacher: LanguageModel,
    params: Params,
    seed: int,
    make: Callable[[], Any],
  ) -> Any:
    """The value called `name`, made at the first request."""
    owner = self._owner
    if (
      owner is None
      or owner[0] is not teacher
      or owner[1] is not params
      or owner[2] != seed
    ):
      self._owner, self._values = (teacher, params, seed), {}
    if name not in self._values:
      self._values[name] = make()
    return self._values[name]
