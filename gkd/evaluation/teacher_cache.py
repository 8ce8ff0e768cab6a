"""Results of a teacher, which are the same at every evaluation of a run."""

from collections.abc import Callable
from typing import Any

from gkd.types import Model


class TeacherCache:
  """Keeps the samples and scores of one teacher with one seed.

  The last teacher is compared by identity: a new tree of parameters is a new
  teacher.
  """

  def __init__(self):
    self._owner = (None, None, None)
    self._values: dict[str, Any] = {}

  def get(
    self,
    name: str,
    teacher: Model,
    seed: int,
    compute: Callable[[], Any],
  ) -> Any:
    """The named result, computed at the first request for this teacher."""
    lm, params, known_seed = self._owner
    if (
      lm is not teacher.lm or params is not teacher.params or known_seed != seed
    ):
      self._owner, self._values = (teacher.lm, teacher.params, seed), {}
    if name not in self._values:
      self._values[name] = compute()
    return self._values[name]
