"""Content hashes of files, JSON values and prompts."""

import hashlib
import json
from pathlib import Path
from typing import Any


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
