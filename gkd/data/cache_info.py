"""The info.json of a token cache: its fields, their checks, what they say."""

from collections.abc import Mapping
import os
from pathlib import Path
from typing import Any

from gkd import files
from gkd.errors import UserError
from gkd.text.vocabulary import Vocabulary

FORMAT = 1
FEATURES = ("inputs", "targets")
INFO_FILE = "info.json"
REMEDY = "delete the cache and make it again with `gkd cache`"
_FILE = {"bytes": int, "sha256": str}
# What `writer.write_rows` adds to info.json or asks for, and what it may have.
_REQUIRED = {
  "task": str,
  "split": str,
  "rows": int,
  "has_targets": bool,
  "lengths": dict.fromkeys(FEATURES, int),
  "longest": dict.fromkeys(FEATURES, int),
  "vocabulary": {"kind": str, "sha256": str, "size": int, "extra_ids": int},
  "metrics": [str],
  "shards": [{"file": str, "rows": int}],
  "files": {str: _FILE},
  "hash": str,
}
_OPTIONAL = {
  "postprocess": str,
  "sources": {str: str},
  "raw_files": {str: {**_FILE, "mtime_ns": int}},
  "written_by": dict,
  "token_lengths": {str: {str: int}},
  "teachers": [str],
  "frame": {"name": str, "before": str, "after": str},
  "lossy": {str: {"rows": int, "unknown_tokens": int, "example": str}},
  **dict.fromkeys(
    ("prompts_alone", "truncated_inputs", "truncated_targets"), int
  ),
}


def read(path: Path) -> dict[str, Any]:
  """The content of info.json of the cache at a path, checked.

  Raises:
    UserError: there is none, or it is incomplete, damaged or of another format.
  """
  if not path.is_dir():
    raise UserError(f"no cache at {path}; make it with `gkd cache`")
  file = path / INFO_FILE
  if not os.path.lexists(file):
    if not any(path.glob("*.array_record")):
      raise UserError(
        f"{path} is no cache: it has no {INFO_FILE}; give a folder that gkd"
        " cache make or gkd sample wrote"
      )
    raise incomplete(path, f"it has no {INFO_FILE}")
  info = files.read_json(file, {"format": int}, REMEDY)
  if info.get("format") != FORMAT:
    raise UserError(
      f"cache {path} has format {info.get('format')}, expected {FORMAT}; delete"
      " it and make it again with `gkd cache`"
    )
  files.check_types(file, info, _REQUIRED, REMEDY, required=True)
  files.check_types(file, info, _OPTIONAL, REMEDY)
  counts = {"truncated": int, "missing": int}
  files.check_types(file, info.get("written_by") or {}, counts, REMEDY)
  shards, listed = info["shards"], info["files"]
  names = [*listed, *(shard["file"] for shard in shards)]
  others = [name for name in names if not files.is_plain_name(name)]
  others += {shard["file"] for shard in shards} - listed.keys()
  others += [shard["file"] for shard in shards if shard["rows"] < 1]
  if others:
    raise UserError(
      f"{file} has {others[0]!r}; expected files of its folder with their sizes"
      f" and sha256, and one row or more in each shard; {REMEDY}"
    )
  return info


def wrong_size(file: Path, expected: int) -> str | None:
  """What is wrong with the size of a file, in words; None: nothing."""
  size = file.stat().st_size if file.is_file() else None
  if size == expected:
    return None
  state = "is missing" if size is None else f"has {size} bytes"
  return f"{state}, not {expected} bytes"


def incomplete(path: Path, why: str) -> UserError:
  return UserError(
    f"incomplete cache {path}: {why}; delete the folder and make it again with"
    " `gkd cache`"
  )


def same_vocabulary(info: Mapping[str, Any], vocabulary: Vocabulary) -> bool:
  """Whether a cache's tokens are this vocabulary's; file names do not count."""
  spec = vocabulary.spec()
  return all(
    info["vocabulary"].get(name) == spec.get(name)
    for name in ("kind", "sha256", "size", "extra_ids", "pad_id", "eos_ids")
  )


def lossy(info: Mapping[str, Any]) -> list[str]:
  """What the vocabulary did not keep, a line for inputs and one for targets."""
  lines = []
  for name, lost in (info.get("lossy") or {}).items():
    line = (
      f"{lost['rows']:,} of {info['rows']:,} {name} hold what the vocabulary"
      f" does not keep ({lost['unknown_tokens']:,} unknown tokens), the first"
      f" is {lost['example']}"
    )
    if name == "targets":
      targets = info["rows"] - info.get("prompts_alone", 0)
      ceiling = 100 * (1 - lost["rows"] / max(targets, 1))
      line += f"; an answer can equal at most {ceiling:.1f} % of the targets"
    lines.append(line)
  return lines
