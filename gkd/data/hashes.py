"""Content hashes: of files, JSON values, prompts, and of the code of a module.

The hash of a module leaves out comments and blank lines, so that a better
explanation does not cost anyone a new cache.
"""

import functools
import hashlib
import importlib.util
import io
import json
from pathlib import Path
import sys
import tokenize
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


def source_hash(module: str) -> str | None:
  """sha256 of a module's code; found without running the module."""
  file = source_file(module)
  if file is None:
    return None
  stat = file.stat()
  return _code_hash(file, stat.st_mtime_ns, stat.st_size)


def source_file(module: str) -> Path | None:
  """The file a module stands in, if there is one."""
  loaded = sys.modules.get(module)
  name = getattr(loaded, "__file__", None)
  if name is None:
    try:
      spec = importlib.util.find_spec(module)
    # Of a dotted name the package above is run, which may fail as it likes.
    except Exception:
      return None
    name = spec.origin if spec else None
  return Path(name) if name and Path(name).is_file() else None


@functools.lru_cache(maxsize=256)
def _code_hash(file: Path, mtime_ns: int, size: int) -> str:
  """The hash of one state of a file: many caches name the same modules."""
  del mtime_ns, size
  try:
    with tokenize.open(file) as opened:
      code = without_comments(opened.read())
  # Compiled, or not Python at all.
  except (tokenize.TokenError, SyntaxError, UnicodeDecodeError):
    return file_hash(file)
  return hashlib.sha256(code.encode()).hexdigest()


def without_comments(source: str) -> str:
  """The lines of a source without comments, blank lines and blanks at ends.

  Lines within a text of several lines stay as they are. Only the places of
  tokens are used, which are the same for every version of Python; how an
  f-string is divided into tokens is not.
  """
  lines = io.StringIO(source).readlines()  # as the tokeniser counts them
  within: set[int] = set()  # lines whose end is inside of a text
  depth, first = 0, 0
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    name = tokenize.tok_name[token.type]
    if name == "COMMENT":
      row, column = token.start
      lines[row - 1] = lines[row - 1][:column] + "\n"
    elif name == "STRING":
      within.update(range(token.start[0], token.end[0]))
    elif name.endswith("STRING_START"):  # an f-string, from Python 3.12 on
      first = first if depth else token.start[0]
      depth += 1
    elif name.endswith("STRING_END"):
      depth -= 1
      if not depth:
        within.update(range(first, token.end[0]))
  kept = [
    line if row in within else line.rstrip() + "\n"
    for row, line in enumerate(lines, start=1)
    if row in within or line.strip()
  ]
  return "".join(kept)
