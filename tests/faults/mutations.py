"""What may happen to a file, drawn by the number of a case."""

import collections
import hashlib
import json
import os
from pathlib import Path
import random
import re
from typing import Any

import gguf

from gkd.checkpoints import checksums
from tests.faults import sound_files

_VALUES: tuple[Any, ...] = (
  *(None, True, False, -1, 0, 1, 1.5, 2**31, 10**9, 10**12, 10**30, -(10**30)),
  *(float("nan"), float("inf"), "", "x", "x" * 5000, "\0", "../../x", "\ud800"),
  *([], {}, [1], {"x": 1}, [[[]]], "/dev/zero", "9" * 400),
)
_DEEP = 100_000
_HEX = re.compile(r"[0-9a-f]{24,}")


def describe(case: str, sound: Path) -> tuple[str, str]:
  """The kind of a case, and its mutation with the name of its file."""
  kind, file, mutation, _ = _drawn(case, lambda kind: sound / kind)
  return kind, f"{mutation.__name__.strip('_')} {file}"


def mutate(case: str, folder: Path) -> bool:
  """Changes a copy; whether its checksums were made again."""
  kind, file, mutation, rng = _drawn(case, lambda kind: folder)
  mutation(folder / file, rng)
  is_signed = rng.random() < 0.4
  if is_signed:
    _sign(kind, folder, folder / file)
  return is_signed


def may_change(kind: str, mutation: str) -> bool:
  """Whether other values than before may come of it: no checksum notices it."""
  if kind == "t5x" and not mutation.endswith((".zarray", "/checkpoint")):
    # A chunk is a gzip stream with a checksum; one for another may pass.
    return mutation.startswith("swap") or "checkpoint" in mutation
  return True


def state(folder: Path) -> list[tuple]:
  """Names, sizes and times below a folder."""
  return [
    (str(file), info.st_size, info.st_mtime_ns, info.st_mode)
    for file in sorted(folder.rglob("*"))
    for info in (file.lstat(),)
  ]


def _drawn(case: str, folder_of):
  rng = random.Random(case)
  kind = rng.choice(sound_files.KINDS)
  folder = folder_of(kind)
  within = folder / "toy" if kind == "cache" else folder
  files = [
    str(file.relative_to(folder))
    for file in sorted(within.rglob("*"))
    if file.is_file() and file.name != "README.md"
  ]
  # There are many alike in folders of arrays, and Orbax draws names: draw among
  # kinds of names, and know a file by its size.
  groups = collections.defaultdict(list)
  for file in files:
    groups[_HEX.sub("x", Path(file).name)].append(file)
  name = rng.choice(sorted(groups))

  def order(file: str) -> tuple[str, int]:
    return _HEX.sub("x", file), (folder / file).stat().st_size

  file = rng.choice(sorted(groups[name], key=order))
  is_json = _json(folder / file) is not None
  of_kind = _OF_JSON * 3 if is_json else [gguf_field] * 12 * (kind == "gguf")
  mutation = rng.choice([*_ANY, *of_kind])
  return kind, file, mutation, rng


def _sign(kind: str, folder: Path, changed: Path) -> None:
  """Makes the hashes again, as one who changes a file on purpose would."""
  if kind in ("run", "model"):
    for mark in folder.rglob(checksums.HASHES_FILE):
      if mark != changed and mark.is_file() and not mark.is_symlink():
        try:
          checksums.write_hashes(mark.parent)
        except OSError:
          continue
  info = folder / "toy" / "train-0" / "info.json"
  if kind == "cache" and changed != info and changed.parent == info.parent:
    about = _json(info)
    try:
      content = changed.read_bytes() if changed.is_file() else b""
    except OSError:
      content = b""
    about["files"][changed.name] = {
      "bytes": len(content),
      "sha256": hashlib.sha256(content).hexdigest(),
    }
    info.write_text(json.dumps(about))


def _json(file: Path) -> Any:
  try:
    value = json.loads(file.read_text("utf-8"))
  except (OSError, ValueError):
    return None
  return value if isinstance(value, dict | list) else None


def truncate(file: Path, rng: random.Random) -> None:
  content = file.read_bytes()
  file.write_bytes(content[: rng.randrange(len(content) or 1)])


def empty(file: Path, rng: random.Random) -> None:
  file.write_bytes(b"")


def delete(file: Path, rng: random.Random) -> None:
  file.unlink()


def flip(file: Path, rng: random.Random) -> None:
  content = bytearray(file.read_bytes())
  for _ in range(rng.randint(1, 3)) if content else ():
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
  file.write_bytes(bytes(content))


def noise(file: Path, rng: random.Random) -> None:
  file.write_bytes(rng.randbytes(rng.randrange(1, 3000)))


def swap(file: Path, rng: random.Random) -> None:
  others = [f for f in sorted(file.parent.iterdir()) if f.is_file()]
  other = rng.choice(others)
  content = file.read_bytes()
  file.write_bytes(other.read_bytes())
  other.write_bytes(content)


def append(file: Path, rng: random.Random) -> None:
  file.write_bytes(file.read_bytes() + rng.randbytes(rng.randrange(1, 100)))


def pipe(file: Path, rng: random.Random) -> None:
  file.unlink()
  os.mkfifo(file)


def folder(file: Path, rng: random.Random) -> None:
  file.unlink()
  file.mkdir()


def link(file: Path, rng: random.Random) -> None:
  file.unlink()
  file.symlink_to(rng.choice(["/dev/zero", "/dev/null", "nowhere", file.name]))


def huge(file: Path, rng: random.Random) -> None:
  os.truncate(file, 700 << 20)


def deep(file: Path, rng: random.Random) -> None:
  start, end = rng.choice([("[", "]"), ('{"a":', "}")])
  depth = rng.choice([500, 900, _DEEP])
  file.write_text(start * depth + "1" + end * depth)


def other_type(file: Path, rng: random.Random) -> None:
  file.write_text(json.dumps(rng.choice(_VALUES)))


def value(file: Path, rng: random.Random) -> None:
  content = _json(file)
  holder, key = rng.choice(_places(content))
  holder[key] = rng.choice(_VALUES)
  file.write_text(json.dumps(content))


def drop(file: Path, rng: random.Random) -> None:
  content = _json(file)
  holder, key = rng.choice(_places(content))
  del holder[key]
  file.write_text(json.dumps(content))


def exchange(file: Path, rng: random.Random) -> None:
  content = _json(file)
  (left, i), (right, j) = (rng.choice(_places(content)) for _ in range(2))
  try:
    text = json.dumps([left[i], right[j]])
    left[i], right[j] = json.loads(text)[::-1]
    file.write_text(json.dumps(content))
  except (LookupError, TypeError, ValueError):  # one was in the other
    file.write_text("{}")


def _places(content: Any) -> list[tuple[Any, Any]]:
  """(container, key) of every node below the top."""
  waiting, places = [content], []
  while waiting:
    node = waiting.pop()
    keys = node.keys() if isinstance(node, dict) else range(len(node))
    # Of long lists, such as a tokenizer's pieces, some.
    for key in list(keys)[:40]:
      places.append((node, key))
      if isinstance(node[key], dict | list):
        waiting.append(node[key])
  return places or [({"": 0}, "")]


def gguf_field(file: Path, rng: random.Random) -> None:
  """Another number: a value, a length or a type in the metadata."""
  fields = [*gguf.GGUFReader(file, "r+").fields.values()]
  part = rng.choice(rng.choice(fields).parts)
  if part.dtype.kind == "f":
    part[:1] = rng.choice([0, -1, float("nan"), float("inf")])
  elif part.size:
    most = (1 << 8 * part.itemsize) - 1
    bits = part.view(f"u{part.itemsize}")
    bits[rng.randrange(part.size)] = rng.choice([0, 1, 8, most >> 1, most])


_ANY = (
  truncate, empty, delete, flip, flip, noise, swap, append, pipe, folder, link,
  huge,
)  # fmt: skip
_OF_JSON = (deep, other_type, value, value, value, drop, exchange)
