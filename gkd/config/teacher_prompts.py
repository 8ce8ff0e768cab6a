"""Another prompt for the teacher: where the inputs that it reads come from.

They are the inputs of other data with the same rows: a task of the same source
with another template, the same files with another text around their columns,
or a token cache.

  TeacherPrompts(task="chain_addition_with_solution")
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from gkd.text.data_files import DataFiles
from gkd.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherPrompts:
  """One of three places, or none.

  Attributes:
    task: of the same rows; for several tasks {task: teacher's task}.
    inputs: of the user's own files: their column, or a text around columns.
    cache: folder of a token cache; for several {folder: teacher's folder}.
  """

  task: str | Mapping[str, str] = ""
  inputs: str = ""
  cache: str | Mapping[str, str] = ""

  def __post_init__(self):
    if len(self.macros) > 1:
      raise UserError(
        f"{' and '.join(self.macros)} are given; give one, which says where the"
        " teacher's prompts are"
      )

  @property
  def macros(self) -> list[str]:
    """The names under which they were given; empty for none."""
    given = {
      "TEACHER_TASK": self.task,
      "TEACHER_INPUTS": self.inputs,
      "TEACHER_CACHE": self.cache,
    }
    return [name for name, value in given.items() if value]

  def fields(self, task: str, cache: Any, own: DataFiles) -> dict[str, Any]:
    """The fields of a `DataConfig` in which the teacher's data differs."""
    if self.cache:
      return {"cache": _of(self.cache, cache, "TEACHER_CACHE")}
    if self.task:
      return {"task": _of(self.task, task, "TEACHER_TASK"), "cache": ""}
    if not own.files:
      raise UserError(
        f"TEACHER_INPUTS is {self.inputs!r}, a column of DATA_FILES, which is"
        " empty; give TEACHER_TASK for a task that a module registers"
      )
    columns = own.columns | {"inputs": self.inputs}
    return {"own": dataclasses.replace(own, fields=columns), "cache": ""}


def _of(given: str | Mapping[str, str], name: str, macro: str) -> str:
  """What goes with a part of a mixture."""
  if isinstance(given, str):
    return given
  if name not in given:
    raise UserError(
      f"{macro} is {dict(given)}, without {name!r}; give the teacher's of each"
    )
  return given[name]
