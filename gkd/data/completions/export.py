"""The text of completions, as JSON lines for a student of another tokenizer.

print(export_text(TokenCache("answers"), "answers.jsonl"))

A line has `inputs`, the raw prompt without the frame of a chat, and `targets`,
the completion without its end: whoever reads it puts its own around them. So a
completion that was cut without EOS is left out, as it would count as ended, and
so is one that is empty or whose tokens have no text of their own.
"""

import collections
from collections.abc import Iterator
import json
import os

from gkd import disk_errors
from gkd import files
from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.text.vocabulary import Vocabulary
from gkd.types import UserError

_ROWS_AT_ONCE = 1024
_BROKEN = "\ufffd"  # what bytes that are no UTF-8 become


def export_text(cache: TokenCache, path: str | os.PathLike) -> str:
  """Writes the file, whole or not at all; says what it left out and why.

  Raises:
    UserError: no model wrote the cache, or none of its rows can be text.
  """
  name = f"{cache.info['task']} {cache.info['split']}"
  if "written_by" not in cache.info:
    raise UserError(
      f"{cache.path} holds the rows of {name}, not completions; give a folder"
      " that gkd sample wrote"
    )
  counts, lines = collections.Counter(), []
  for row in _rows(cache):
    ids = row.targets.tolist()
    text = cache.vocabulary.decode(ids)
    why = _unfit(ids, text, cache.vocabulary)
    counts[why] += 1
    if why is None:
      line = {"inputs": row.prompt, "targets": text}
      lines.append(json.dumps(line, ensure_ascii=False) + "\n")
  del counts[None]
  left_out = ", ".join(f"{n:,} {why}" for why, n in sorted(counts.items()))
  if not lines:
    raise UserError(
      f"no completion of {cache.path} can be text: {left_out}; sample with"
      " longer targets in TASK_FEATURE_LENGTHS or another SAMPLING_TEMPERATURE"
    )
  with disk_errors.explaining(f"cannot write {path}"):
    files.write_text(path, "".join(lines))
  return (
    f"{len(lines):,} of {len(cache):,} completions of {name} as text: {path}"
    + (f"; left out: {left_out}" if left_out else "")
  )


def _rows(cache: TokenCache) -> Iterator[Row]:
  for start in range(0, len(cache), _ROWS_AT_ONCE):
    yield from cache.read(range(start, min(start + _ROWS_AT_ONCE, len(cache))))


def _unfit(ids: list[int], text: str, vocabulary: Vocabulary) -> str | None:
  """Why a completion is left out; None if it is not."""
  if not ids or ids[-1] not in vocabulary.eos_ids:
    return "cut without EOS"
  if not text.strip():
    return "empty"
  if _BROKEN in text or vocabulary.unk_id in ids:
    return "with broken or unknown characters"
  return None
