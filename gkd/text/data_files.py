"""Own data in files of rows, as a configuration names it; no Python is needed.

  DataFiles(
    files={"train": "a.csv", "validation": "b.csv"},
    fields={"inputs": "summarize: {document}", "targets": "summary"},
    metrics=["rouge"],
  )

`file_rows` reads them, and `gkd.tasks.file_task` makes a task of them.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from gkd.errors import UserError
from gkd.text import metrics as metric_functions

TASK_MODULE = "gkd.tasks.file_task"
_OVER_TASKS = "exact_match_over_tasks"
_FIELDS = ("inputs", "targets", "references", "task", "teacher")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFiles:
  """Which files, which of their columns, and how answers are scored.

  Attributes:
    files: a file or folder for each split, or one folder of all splits; "" for
      none. Relative to the data directory, without one to the working folder.
    fields: the column of "inputs", and of "targets" and "references" where
      there are any; with braces a text around columns. By default "inputs" and
      "targets". "task" is what `exact_match_over_tasks` takes the mean over,
      "teacher" names the one of several teachers that scores the row.
    metrics: names of functions of `gkd.text.metrics`, by default "exact_match".
  """

  files: str | Mapping[str, str] = ""
  fields: Mapping[str, str] | None = None
  metrics: Sequence[str] | None = None

  def __post_init__(self):
    if not self.files and (self.fields or self.metrics):
      raise UserError(
        "DATA_FIELDS and METRICS are of your own files; give DATA_FILES, or"
        " leave them out"
      )
    if "inputs" not in self.columns or set(self.columns) - set(_FIELDS):
      raise UserError(
        f"DATA_FIELDS is {self.columns}; expected a column of 'inputs' and"
        " maybe of 'targets' and 'references', as {'inputs': 'question',"
        " 'targets': 'answer'}"
      )
    over_tasks = _OVER_TASKS in (self.metrics or ())
    fits = len(self.metrics or ()) == 1 and "references" not in self.columns
    if over_tasks != ("task" in self.columns) or (over_tasks and not fits):
      raise UserError(
        f"DATA_FIELDS is {self.columns} and METRICS {self.metrics}; expected a"
        f" column of 'task' with METRICS = [{_OVER_TASKS!r}], without"
        " 'references', and with no other"
      )
    for name in self.metrics or ():
      if not hasattr(getattr(metric_functions, name, None), "statistics"):
        raise UserError(
          f"METRICS has {name!r}; expected functions of gkd.text.metrics, such"
          " as 'accuracy', 'exact_match', 'answer_accuracy', 'bleu', 'bleu_zh'"
          " or 'rouge'"
        )

  @property
  def columns(self) -> dict[str, str]:
    """`fields`, by default columns of their names."""
    return dict(self.fields or {"inputs": "inputs", "targets": "targets"})

  def settings(self) -> dict[str, Any]:
    """As JSON has it."""
    files = self.files if isinstance(self.files, str) else dict(self.files)
    return {
      "files": files,
      "fields": self.columns,
      "metrics": list(self.metrics or ["exact_match"]),
    }
