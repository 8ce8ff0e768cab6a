"""Descriptions of token caches: what is in them, and in what state they are."""

from collections.abc import Iterator
from collections.abc import Mapping
import datetime
import os
from pathlib import Path
from typing import Any

from gkd import locks
from gkd.config import vocabularies
from gkd.data import cache as caches
from gkd.data import cache_info
from gkd.data import shards
from gkd.data.builder import cache_key
from gkd.data.builder import mixture_rates
from gkd.data.cache import TokenCache
from gkd.types import UserError

# Of `info.json["written_by"]`: field, text, and the value that is not shown.
_WRITER = (
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
)


def name(cache: TokenCache) -> str:
  """Task and split."""
  return f"{cache.info['task']} {cache.info['split']}"


def entry(cache: TokenCache, data_dir: str, verified: bool = False) -> str:
  """A few lines about a cache; their first says how it is.

  `data_dir` has the raw files, "" if nothing does; of a cache that is
  `verified` every byte was read and compared.
  """
  info, spec = cache.info, cache.info["vocabulary"]
  extra = f" ({spec['extra_ids']} extra)" if spec["extra_ids"] else ""
  file = cache.path / caches.PROMPTS_FILE  # written last but info.json
  modified = datetime.datetime.fromtimestamp(file.stat().st_mtime)
  kind = "rows" if info["has_targets"] else "prompts alone"
  if prompts := info.get("prompts_alone"):
    kind = f"rows, {prompts:,} of them prompts alone"
  lines = [
    f"{name(cache)}: {_state(info, data_dir, verified)}",
    f"{len(cache):,} {kind}; tokens (longest/limit) {_lengths(info)}",
    f"vocabulary {spec.get('file') or spec['kind']}, {spec['size']:,}"
    f" ids{extra}; {_format_bytes(num_bytes(cache))} on disk; made"
    f" {modified.isoformat(' ', 'minutes')}",
    str(cache.path),
  ]
  if info.get("token_lengths"):
    lines.insert(2, token_lengths(info))
  lines += cache_info.lossy(info)
  if writer := info.get("written_by"):
    lines.insert(2, _written_by(writer))
  return "\n  ".join(lines)


def entries(cache_dir: str | os.PathLike, data_dir: str) -> Iterator[str]:
  """One for each cache of a folder, whole or not, and for each mixture."""
  for folder in sorted(Path(cache_dir).glob("*/*")):
    name = folder.name
    if folder.parent.name == vocabularies.FOLDER:
      continue
    if name == mixture_rates.NAME:
      yield _mixture(folder, data_dir)
    elif name.startswith(".") and name.endswith(".partial") and folder.is_dir():
      yield _half_made(folder)
    elif folder.is_dir() and not name.startswith("."):
      try:
        yield entry(TokenCache(folder), data_dir)
      except UserError as error:
        yield f"{folder.parent.name} {name}: DAMAGED\n  {error}"


def cache_folders(cache_dir: str | os.PathLike) -> list[Path]:
  """Folders of caches: this one, or those in it or in its folders."""
  for pattern in ("", "*/", "*/*/"):
    files = sorted(Path(cache_dir).glob(f"{pattern}{cache_info.INFO_FILE}"))
    if files:
      return [file.parent for file in files]
  return []


def num_bytes(cache: TokenCache) -> int:
  """Size of the cache's files."""
  return sum(file["bytes"] for file in cache.info["files"].values())


def _format_bytes(size: float) -> str:
  """1.2 kB, 34 MB: powers of 1000, as disks are sold."""
  for unit in ("bytes", "kB", "MB", "GB"):
    if size < 1000:
      return f"{size:.3g} {unit}" if size < 100 else f"{size:.0f} {unit}"
    size /= 1000
  return f"{size:.3g} TB"


def _state(info: Mapping[str, Any], data_dir: str, verified: bool) -> str:
  parts = ["sound, every byte was read"] if verified else []
  changed, _ = cache_key.compare(info, data_dir)
  if changed:
    parts.append(f"STALE, {changed[0]} has changed since it was made")
  elif "sources" in info:
    known = info.get("raw_files") or info.get("generated")
    parts.append("fresh" if known else "code fresh, raw files not tracked")
  elif not verified:
    parts.append("complete")
  return "; ".join(parts)


def _lengths(info: Mapping[str, Any]) -> str:
  parts = []
  for feature in ("inputs", "targets"):
    cut = info.get(f"truncated_{feature}")
    parts.append(
      f"{feature} {info['longest'][feature]}/{info['lengths'][feature]}"
      + (f" ({cut:,} rows cut)" if cut else "")
    )
  return ", ".join(parts)


def token_lengths(info: Mapping[str, Any]) -> str:
  """Percentiles of the numbers of tokens, as they were before rows were cut."""
  parts = [
    f"{feature} {'/'.join(map(str, lengths.values()))}"
    for feature, lengths in info["token_lengths"].items()
  ]
  return f"tokens before cutting (50/90/99 % of rows, all): {', '.join(parts)}"


def _written_by(writer: Mapping[str, Any]) -> str:
  """Who wrote the targets, of `gkd sample`."""
  parts = [f"targets written by the {writer.get('source', 'model')}"]
  for field, template, usual in _WRITER:
    if (value := writer.get(field)) not in (None, usual):
      parts.append(template.format(value))
  return ", ".join(parts)


def _half_made(folder: Path) -> str:
  """How far a cache in the making is, and whether a process is at it."""
  done = shards.sidecars(folder)
  rows = sum(numbers["rows"] for numbers in done.values())
  final = folder.with_name(folder.name[1:].removesuffix(".partial"))
  owner = locks.holder(folder.with_name(f".{final.name}.lock"))
  how = f"in the making by {owner}" if owner else "HALF-MADE, nobody is at it"
  resume = "" if owner else "; the command that was stopped goes on from there"
  return (
    f"{folder.parent.name} {final.name}: {how}\n"
    f"  {rows:,} rows in {len(done)} shards are done{resume}\n"
    f"  {folder}"
  )


def _mixture(path: Path, data_dir: str) -> str:
  task = path.parent.name
  rates = mixture_rates.find(path.parent.parent, task, data_dir)
  if rates is None:
    text = "STALE; gkd cache make computes its rates anew"
  else:
    parts = (f"{task} {rate:g}" for task, rate in rates.items())
    text = f"fresh\n  rates {', '.join(parts)}"
  return f"mixture {task}: {text}\n  {path}"
