"""Token caches in words: what is in them, and in what state they are.

print(entry(TokenCache(path), data_dir))
for text in entries(cache_dir, data_dir): print(text)
"""

from collections.abc import Iterator
import datetime
import os
from pathlib import Path

from gkd import locks
from gkd.checkpoints import local_copy
from gkd.data import cache as caches
from gkd.data import shards
from gkd.data.builder import mixture_rates
from gkd.data.builder import staleness
from gkd.data.cache import TokenCache
from gkd.types import UserError


def name(cache: TokenCache) -> str:
  """Task and split."""
  return f"{cache.info['task']} {cache.info['split']}"


def entry(cache: TokenCache, data_dir: str, verified: bool = False) -> str:
  """A few lines about a cache; their first says how it is.

  Args:
    cache: readable, at least by the sizes of its files.
    data_dir: where its raw files are on this machine, "" if nowhere.
    verified: every byte was read and compared.
  """
  info = cache.info
  lines = [
    f"{name(cache)}: {_state(cache, data_dir, verified)}",
    f"{len(cache):,} {'rows' if info['has_targets'] else 'prompts alone'};"
    f" tokens (longest/limit) {_lengths(cache)}",
    f"vocabulary {_vocabulary(cache)}; {size_words(num_bytes(cache))} on disk;"
    f" made {_made(cache)}",
  ]
  if writer := info.get("written_by"):
    lines.insert(2, _written_by(writer))
  return "\n  ".join([*lines, str(cache.path)])


def entries(cache_dir: str | os.PathLike, data_dir: str) -> Iterator[str]:
  """One for each cache of a folder, whole or not, and for each mixture."""
  tasks = Path(cache_dir)
  folders = [
    folder
    for task in (sorted(tasks.iterdir()) if tasks.is_dir() else ())
    if task.is_dir() and task.name != local_copy.FOLDER  # copies of checkpoints
    for folder in sorted(task.iterdir())
  ]
  for folder in folders:
    if folder.name == mixture_rates.NAME:
      yield _mixture(folder, data_dir)
    elif _is_partial(folder):
      yield _half_made(folder)
    elif folder.is_dir() and not folder.name.startswith("."):
      try:
        yield entry(TokenCache(folder), data_dir)
      except UserError as error:
        yield f"{folder.parent.name} {folder.name}: DAMAGED\n  {error}"


def found(cache_dir: str | os.PathLike) -> list[Path]:
  """Folders of caches: this one, or those in it or in its folders."""
  for pattern in ("", "*/", "*/*/"):
    files = sorted(Path(cache_dir).glob(f"{pattern}{caches.INFO_FILE}"))
    if files:
      return [file.parent for file in files]
  return []


def num_bytes(cache: TokenCache) -> int:
  return sum(file["bytes"] for file in cache.info["files"].values())


def size_words(size: float) -> str:
  """1.2 kB, 34 MB: powers of 1000, as disks are sold."""
  for unit in ("bytes", "kB", "MB", "GB"):
    if size < 1000:
      return f"{size:.3g} {unit}" if size < 100 else f"{size:.0f} {unit}"
    size /= 1000
  return f"{size:.3g} TB"


def _state(cache: TokenCache, data_dir: str, verified: bool) -> str:
  parts = ["sound, every byte was read"] if verified else []
  change = staleness.changed(cache.info, data_dir)
  if change is not None:
    parts.append(f"STALE, {change} has changed since it was made")
  elif "sources" in cache.info:
    known = cache.info.get("raw_files") or cache.info.get("generated")
    parts.append("fresh" if known else "code fresh, raw files not tracked")
  elif not verified:
    parts.append("complete")
  return "; ".join(parts)


def _lengths(cache: TokenCache) -> str:
  info = cache.info
  parts = []
  for feature in ("inputs", "targets"):
    text = f"{feature} {info['longest'][feature]}/{info['lengths'][feature]}"
    if cut := info.get(f"truncated_{feature}"):
      text += f" ({cut:,} rows cut)"
    parts.append(text)
  return ", ".join(parts)


def _vocabulary(cache: TokenCache) -> str:
  spec = cache.info["vocabulary"]
  text = f"{spec.get('file') or spec['kind']}, {spec['size']:,} ids"
  return text + f" ({spec['extra_ids']} extra)" * bool(spec["extra_ids"])


def _made(cache: TokenCache) -> str:
  """When the last of its files but info.json was written."""
  file = cache.path / caches.PROMPTS_FILE
  time = datetime.datetime.fromtimestamp(file.stat().st_mtime)
  return time.isoformat(" ", "minutes")


def _written_by(writer: dict) -> str:
  """Who wrote the targets, of `gkd sample`."""
  parts = [f"targets written by the {writer.get('source', 'model')}"]
  for field, words, usual in (
    ("checkpoint", "checkpoint {}", None),
    ("temperature", "temperature {}", None),
    ("top_k", "top-k {}", 0),
    ("top_p", "top-p {}", 1),
    ("beam_size", "beams {}", None),
    ("beam_alpha", "alpha {}", None),
    ("num_samples", "{} a prompt", None),
    ("seed", "seed {}", None),
    ("truncated", "{:,} cut without EOS", 0),
    ("missing", "{:,} missing, as fewer beams ended", 0),
    ("date", "{}", None),
  ):
    if (value := writer.get(field, usual)) != usual:
      parts.append(words.format(value))
  return ", ".join(parts)


def _is_partial(folder: Path) -> bool:
  partial = folder.name.startswith(".") and folder.name.endswith(".partial")
  return partial and folder.is_dir()


def _half_made(folder: Path) -> str:
  """How far a cache in the making is, and whether somebody is at it."""
  done = shards.sidecars(folder)
  rows = sum(numbers["rows"] for numbers in done.values())
  final = folder.with_name(folder.name[1:].removesuffix(".partial"))
  owner = locks.holder(folder.with_name(f".{final.name}.lock"))
  how = f"in the making by {owner}" if owner else "HALF-MADE, nobody is at it"
  text = (
    f"{folder.parent.name} {final.name}: {how}\n"
    f"  {rows:,} rows in {len(done)} shards are done"
  )
  if not owner:
    text += "; the command that was stopped goes on from there"
  return f"{text}\n  {folder}"


def _mixture(path: Path, data_dir: str) -> str:
  rates = mixture_rates.find(path.parent.parent, path.parent.name, data_dir)
  if rates is None:
    state = "STALE; gkd cache make computes its rates anew"
    return f"mixture {path.parent.name}: {state}\n  {path}"
  parts = ", ".join(f"{task} {rate:g}" for task, rate in rates.items())
  return f"mixture {path.parent.name}: fresh\n  rates {parts}\n  {path}"
