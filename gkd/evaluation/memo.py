"""Remembers what is the same at every evaluation of a run."""

from collections.abc import Callable
from typing import Any

from gkd.types import LanguageModel
from gkd.types import Params


class TeacherMemo:
  """Keeps what one teacher wrote with one seed.

  Its samples are the same at every step of a run. The last teacher is compared
  by identity: a new tree of parameters is a new teacher.
  """

  def __init__(self):
    self._owner: tuple[LanguageModel, Params, int] | None = None
    self._value: Any = None

  def get(
    self,
    teacher: LanguageModel,
    params: Params,
    seed: int,
    make: Callable[[], Any],
  ) -> Any:
    """The value, made at the first request for this teacher and seed."""
    owner = self._owner
    if (
      owner is None
      or owner[0] is not teacher
      or owner[1] is not params
      or owner[2] != seed
    ):
      self._value = make()
      self._owner = (teacher, params, seed)
    return self._value
