"""What the rows of a cache depend on, compared in words.

differences({"seed": 0, "top_k": 5}, {"seed": 1, "top_k": 5})
# "seed 0, not 1"
"""

from collections.abc import Mapping
from typing import Any

_SHOWN = 12  # characters of a value: enough of a hash
_MAX_NAMED = 4


def differences(found: Any, wanted: Any) -> str:
  """Names what two keys disagree about, with both values.

  Args:
    found: JSON that something was made with.
    wanted: JSON that it should have been made with.

  Returns:
    "temperature 1.0, not 0.7; seed 0, not 1"; "" where they are equal.
  """
  left, right = _flat(found), _flat(wanted)
  names = [n for n in {**left, **right} if left.get(n) != right.get(n)]
  parts = [
    f"{name} {_shown(left.get(name))}, not {_shown(right.get(name))}"
    for name in names[:_MAX_NAMED]
  ]
  if more := len(names) - _MAX_NAMED:
    parts += [f"{more} more"] * (more > 0)
  return "; ".join(parts)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
  """{"prompts.split": "train"} of nested dicts."""
  if not isinstance(value, Mapping):
    return {name or "settings": value}
  flat: dict[str, Any] = {}
  for key, part in value.items():
    flat |= _flat(part, f"{name}.{key}" if name else str(key))
  return flat


def _shown(value: Any) -> str:
  if value is None:
    return "none"
  text = str(value)
  return text if len(text) <= _SHOWN * 2 else f"{text[:_SHOWN]}…"
