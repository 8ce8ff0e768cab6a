"""Content hashes of files, JSON values and prompts; the difference of two keys.

content_hash({"a": 1})
differences({"seed": 0, "top_k": 5}, {"seed": 1, "top_k": 5})  # "seed 0, not 1"
"""

from collections.abc import Mapping
import hashlib
import json
from pathlib import Path
from typing import Any

_SHOWN_CHARACTERS = 24  # of a value: enough of a hash
_MAX_NAMED = 4


def file_hash(path: Path) -> str:
  """sha256 of a file's content."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(value: Any) -> str:
  """sha256 of a JSON value, whatever the order of its keys."""
  text = json.dumps(value, sort_keys=True, ensure_ascii=False)
  return hashlib.sha256(text.encode()).hexdigest()


def prompt_hash(prompt: str) -> int:
  """64 bits of a prompt's text; blanks around it do not count."""
  digest = hashlib.blake2b(prompt.strip().encode(), digest_size=8).digest()
  return int.from_bytes(digest, "little")


def differences(found: Any, wanted: Any) -> str:
  """Names what two JSON values disagree about, with both values.

  Returns:
    "temperature 1.0, not 0.7; prompts.split train, not test"; "" if equal.
  """
  left, right = _flat(found), _flat(wanted)
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
  flat: dict[str, Any] = {}
  for key, part in value.items():
    flat |= _flat(part, f"{name}.{key}" if name else str(key))
  return flat


def _shown(value: Any) -> str:
  text = "none" if value is None else str(value)
  limit = _SHOWN_CHARACTERS
  return text if len(text) <= limit else f"{text[: limit // 2]}…"
