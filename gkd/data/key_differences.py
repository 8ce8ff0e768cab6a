"""What two keys of a half-made cache disagree about."""

from collections.abc import Mapping
from typing import Any

_SHOWN_CHARACTERS = 24  # of a value: enough of a hash
_MAX_NAMED = 4


def describe(old: Any, new: Any) -> str:
  """What two JSON values disagree about, with both values; "" if equal.

  Example: "temperature 1.0, not 0.7; prompts.split train, not test".
  """
  left, right = _flat(old), _flat(new)
  names = [n for n in {**left, **right} if left.get(n) != right.get(n)]
  parts = [
    f"{name} {_shown(left.get(name))}, not {_shown(right.get(name))}"
    for name in names[:_MAX_NAMED]
  ]
  if more := names[_MAX_NAMED:]:
    parts.append(f"{len(more)} more")
  return "; ".join(parts)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
  """{"prompts.split": "train"} of nested dicts."""
  if not isinstance(value, Mapping):
    return {name or "settings": value}
  flat = {}
  for key, part in value.items():
    flat |= _flat(part, f"{name}.{key}" if name else str(key))
  return flat


def _shown(value: Any) -> str:
  text = "none" if value is None else str(value)
  half = _SHOWN_CHARACTERS // 2
  return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:half]}…"
