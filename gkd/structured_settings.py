"""Settings of a run as JSON, and the differences between two runs.

A setting is a field of a frozen dataclass that takes part in comparisons.

  @dataclasses.dataclass(frozen=True)
  class Periods:
    eval: int = setting("EVAL_PERIOD", default=1000, may_change=True)

  before = to_json(Periods())
  differences(before, Periods(eval=10), "")  # EVAL_PERIOD: 1000 → 10
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import NamedTuple

import numpy as np

from gkd.errors import UserError

_MAX_SHOWN = 120  # characters of a value
_NOT_SET = "not set"


def setting(macro: str, *, may_change: bool = False, **default: Any) -> Any:
  """A dataclass field with the name that a user knows it by.

  Args:
    macro: "EVAL_PERIOD"; one that ends with "_" is put in front of the names of
      the fields below it.
    may_change: whether a resumed run may have another value.
    **default: `default` or `default_factory`, as `dataclasses.field` takes it.
  """
  metadata = {"macro": macro, "may_change": may_change}
  return dataclasses.field(**default, metadata=metadata)


class Difference(NamedTuple):
  """A setting whose value is not what it was."""

  name: str
  before: Any  # JSON
  now: Any  # JSON
  may_change: bool

  def __str__(self) -> str:
    return f"{self.name}: {_shown(self.before)} → {_shown(self.now)}"


def to_json(value: Any) -> Any:
  """JSON of a setting; a record becomes {"type": class, field: …}.

  Of an object that is neither a record nor JSON only its name or class is kept,
  see `require_comparable`.
  """
  if _is_record(value):
    fields = {f.name: to_json(getattr(value, f.name)) for f in _fields(value)}
    return {"type": type(value).__qualname__} | fields
  if isinstance(value, Mapping):
    return {str(key): to_json(item) for key, item in value.items()}
  if isinstance(value, str | int | float | None):
    return value
  if isinstance(value, np.generic | np.ndarray):
    return value.tolist()
  if isinstance(value, Sequence):
    return [to_json(item) for item in value]
  return getattr(value, "__qualname__", type(value).__qualname__)


def require_comparable(value: Any, name: str) -> None:
  """Refuses objects of which `to_json` keeps the class alone.

  Raises:
    UserError: an object that is neither a frozen dataclass nor a function.
  """
  if _is_record(value) and type(value).__dataclass_params__.frozen:
    for field in _fields(value):
      below = field.metadata.get("macro") or _below(name, field.name)
      require_comparable(getattr(value, field.name), below)
  elif isinstance(value, Mapping):
    for key, item in value.items():
      require_comparable(item, f"{name}[{key!r}]")
  elif isinstance(value, Sequence) and not isinstance(value, str):
    for item in value:
      require_comparable(item, name)
  elif not isinstance(
    value, str | int | float | None | np.generic | np.ndarray
  ) and not hasattr(value, "__qualname__"):
    raise UserError(
      f"{name} is a {type(value).__qualname__}, whose settings a resumed run"
      " could not be compared by; make it a frozen dataclass or a function"
    )


def differences(
  before: Any, now: Any, name: str, may_change: bool = False
) -> list[Difference]:
  """What differs between saved settings and a setting of today.

  A field that was not saved, as an earlier version did not have it, counts as
  having had its default.

  Args:
    before: JSON of `to_json`.
    now: the setting itself, whose fields say their names.
    name: of the whole.
    may_change: of the whole.
  """
  after = to_json(now)
  if before == after:
    return []
  if _is_record(now) and _type(before) == _type(after):
    changed = []
    for field in _fields(now):
      value = getattr(now, field.name)
      if field.name not in before and value == field.default:
        continue
      changed += differences(
        before.get(field.name, _NOT_SET),
        value,
        field.metadata.get("macro") or _below(name, field.name),
        may_change or field.metadata.get("may_change", False),
      )
    return changed
  lists = isinstance(before, list) and isinstance(after, list)
  if lists and now and all(map(_is_record, now)):
    if len(before) != len(now):
      many = f"number of {name.rstrip('_')} settings"
      return [Difference(many, len(before), len(now), may_change)]
    return [
      change
      for pair in zip(before, now, strict=True)
      for change in differences(*pair, name, may_change)
    ]
  return [Difference(name, before, after, may_change)]


def _below(name: str, field: str) -> str:
  return name + field.upper() if name.endswith("_") else f"{name}.{field}"


def _is_record(value: Any) -> bool:
  return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _fields(record: Any) -> list[dataclasses.Field]:
  return [field for field in dataclasses.fields(record) if field.compare]


def _type(json: Any) -> str | None:
  return json.get("type") if isinstance(json, dict) else None


def _shown(json: Any) -> str:
  """`ReverseKL()` for {"type": "ReverseKL"}; long values are cut."""
  if kind := _type(json):
    fields = [
      f"{name}={_shown(value)}"
      for name, value in json.items()
      if name != "type" and value is not None
    ]
    text = f"{kind}({', '.join(fields)})"
  elif isinstance(json, list):
    text = f"[{', '.join(map(_shown, json))}]"
  else:
    text = json if json == _NOT_SET else repr(json)
  return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
