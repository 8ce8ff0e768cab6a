"""What runs say of their models and data in `run.json`: tables of it."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import re
from typing import Any

from gkd.report import formats
from gkd.report.runs import Run
from gkd.report.runs import by_arm
from gkd.report.tables import Cell
from gkd.report.tables import Table

# Who wrote texts that a run was trained on, at any depth of run.json.
_WRITTEN = "written_by"


def differences(runs: Sequence[Run]) -> Table | None:
  """What is unlike between the arms; None where all of it is alike."""
  arms = by_arm(runs)
  found = {arm: _values(members) for arm, members in arms.items()}
  names = sorted({name for values in found.values() for name in values})
  names = [
    name
    for name in names
    if len({values.get(name) for values in found.values()}) > 1
    and _WRITTEN not in name.split(".")
  ]
  return _table("Models and data", names, found)


def written(runs: Sequence[Run]) -> Table | None:
  """Who wrote the texts that were trained on; None where no run says."""
  found = {arm: _written(members) for arm, members in by_arm(runs).items()}
  found = {arm: values for arm, values in found.items() if values}
  names = list(dict.fromkeys(n for values in found.values() for n in values))
  return _table("Texts written by a model", names, found)


def _written(members: Sequence[Run]) -> dict[str, str]:
  """{fact: value} of the texts; with a place where there are several."""
  split = [
    (name.split(f"{_WRITTEN}."), value)
    for name, value in _values(members).items()
    if f".{_WRITTEN}." in f".{name}"
  ]
  several = len({place for (place, _), _ in split}) > 1
  return {
    f"{place}{fact}" if several else fact: value
    for (place, fact), value in split
  }


def _table(
  title: str, names: Sequence[str], found: Mapping[str, Mapping[str, str]]
) -> Table | None:
  if not names:
    return None
  rows = [
    [Cell(name), *(Cell(values.get(name, "–")) for values in found.values())]
    for name in names
  ]
  header = ["fact", *found]
  return Table(header, rows, "", [False] * len(header), title)


def _values(members: Sequence[Run]) -> dict[str, str]:
  """{dotted name: value} of an arm; all values where its seeds differ."""
  found: dict[str, dict[str, None]] = {}
  for run in members:
    for name, value in _flat(run.identity):
      found.setdefault(name, {})[_short(value)] = None
  return {name: " · ".join(values) for name, values in found.items()}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
  """Leaves with their dotted names."""
  if isinstance(value, Mapping) and (value or not name):
    for key, item in value.items():
      yield from _flat(item, f"{name}.{key}" if name else str(key))
  else:
    yield name, value


def _short(value: Any) -> str:
  """A value in a cell; of a hash its beginning."""
  if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32,}", value):
    return f"{value[:12]}…"
  if isinstance(value, list):
    return ", ".join(map(str, value))
  return value if isinstance(value, str) else formats.plain(value)
