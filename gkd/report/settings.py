"""What differs between the configurations of runs."""

from collections.abc import Sequence
import os
import re

from gkd.report import names
from gkd.report.runs import Run
from gkd.report.runs import by_arm
from gkd.report.tables import Cell
from gkd.report.tables import Table

# So many columns are read without scrolling.
_MAX_ARMS = 4


def main_table(runs: Sequence[Run]) -> Table | None:
  """Macros of which arms have different values; None if there are none."""
  rows = [row for row in _differences(runs) if _is_main(row)]
  note = "What is alike in all runs is left out; a dash: not in this run."
  return _table(runs, rows, note)


def other_table(runs: Sequence[Run]) -> Table | None:
  """The other differences: what some arms lack, and single arguments."""
  rows = [row for row in _differences(runs) if not _is_main(row)]
  return _table(runs, rows, "")


def _is_main(row: Sequence[str | None]) -> bool:
  name, *values = row
  return "." not in name and len(set(values) - {None}) > 1


def _differences(runs: Sequence[Run]) -> list[list[str | None]]:
  """Name, then the value in each arm, of settings that are not alike."""
  arms = _with_settings(runs)
  root = _root(runs)
  rows = []
  for name in sorted({name for run in runs for name in run.config}):
    values = [_value(found, name, root) for found in arms.values()]
    # Each run has a folder of its own; its name says which.
    is_folder = name.lower().endswith("model_dir")
    # What refers to a macro differs where the macro does.
    refers = "." in name and all((v or "%").startswith("%") for v in values)
    if len(set(values)) > 1 and not is_folder and not refers:
      rows.append([name, *values])
  return rows


def _with_settings(runs: Sequence[Run]) -> dict[str, list[Run]]:
  """The arms, without runs whose configuration is not there."""
  return by_arm([run for run in runs if run.config])


def _table(
  runs: Sequence[Run], rows: Sequence[Sequence[str | None]], note: str
) -> Table | None:
  """Settings below each other; beside each other where there are more arms."""
  if not rows:
    return None
  header = ["setting", *_with_settings(runs)]
  if len(header) - 1 > max(_MAX_ARMS, len(rows)):
    header, *rows = zip(header, *rows, strict=True)
    header = ["run", *header[1:]]
  return Table(
    header=header,
    rows=[[Cell("–" if v is None else v) for v in row] for row in rows],
    note=note,
    numeric=[False] * len(header),
    title="Settings that differ",
  )


def _value(runs: Sequence[Run], name: str, root: str) -> str | None:
  """The value in an arm; where its seeds differ all values, in their order."""
  values = [run.config.get(name) for run in runs]
  if len(set(values)) > 1:
    values = [None if v is None else names.without_seed(v) for v in values]
  if set(values) == {None}:
    return None
  shown = dict.fromkeys("–" if v is None else _plain(v) for v in values)
  text = " · ".join(shown)
  return text.replace(root, "") if root != os.sep else text


def _root(runs: Sequence[Run]) -> str:
  """The folder that all runs have in common, with its slash."""
  folders = [os.path.dirname(os.path.abspath(run.path)) for run in runs]
  common = os.path.commonpath(folders) if folders else ""
  return common.rstrip(os.sep) + os.sep


def _plain(value: str) -> str:
  """'text' -> text and @module.Class() -> Class; other values as they are."""
  match = re.fullmatch(r"'([^']+)'|\"([^\"]+)\"|@(?:\w+\.)*(\w+)\(\)", value)
  return next(filter(None, match.groups())) if match else value
