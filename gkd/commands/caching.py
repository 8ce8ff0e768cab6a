"""`gkd cache`: make, list and check token caches; train a vocabulary."""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
from pathlib import Path
import tempfile

from gkd.commands import configuration
from gkd.commands import datasets
from gkd.commands import gin_table
from gkd.commands import outputs
from gkd.commands.datasets import Folders
from gkd.commands.datasets import open_cache
from gkd.commands.settings import Data
from gkd.data.cache import TokenCache
from gkd.text.sentencepiece_training import train_sentencepiece
from gkd.types import UserError

_RUN_FILE = "runs/data.gin"
_ROWS_AT_ONCE = 1024


def make(
  files: Sequence[str],
  bindings: Sequence[str],
  splits: Sequence[str],
  folders: Folders,
  num_workers: int | None = None,
) -> None:
  """Makes the caches of a task file; both its splits without `splits`.

  Those that exist are read and compared; what is damaged or stale is made anew.
  """
  configuration.load([_RUN_FILE, *files], bindings)
  # A task that is only evaluated, as SVAMP, names no training split.
  scopes = {"train": "TRAIN_SPLIT", "eval": "EVAL_SPLIT"}
  wanted = [
    configuration.build(Data, scope=scope)
    for scope, name in scopes.items()
    if gin_table.is_bound(name)
  ]
  if not wanted:
    raise UserError(
      "no TRAIN_SPLIT and no EVAL_SPLIT; add a --gin_file of tasks/"
    )
  if splits:
    wanted = [dataclasses.replace(wanted[0], split=s) for s in splits]
  for data in wanted:
    path = datasets.make(data, folders, num_workers=num_workers, check=True)
    print(_line(TokenCache(path)))


def show(folders: Folders) -> None:
  """Lists the finished caches of the cache folder."""
  found = sorted(Path(folders.cache_dir).glob("*/*/info.json"))
  for file in found:
    try:
      print(_line(TokenCache(file.parent)))
    except UserError as error:
      print(error)
  if not found:
    print(f"no caches in {folders.cache_dir}; make one with gkd cache make")


def check(paths: Sequence[str]) -> None:
  """Reads every byte of these caches and compares the hashes."""
  for path in paths:
    cache = TokenCache(path)
    cache.verify()
    print(f"sound: {_line(cache)}")


def _line(cache: TokenCache) -> str:
  info = cache.info
  lengths = " → ".join(
    f"{info['longest'][name]}/{info['lengths'][name]}"
    for name in ("inputs", "targets")
  )
  return (
    f"{info['task']} {info['split']}: {info['rows']:,} rows, tokens"
    f" (longest/limit) {lengths}, vocabulary of"
    f" {info['vocabulary']['size']:,}, {cache.path}"
  )


def vocabulary(
  files: Sequence[str],
  bindings: Sequence[str],
  size: int,
  output: str,
  folders: Folders,
) -> None:
  """Trains a SentencePiece vocabulary on a task's training texts."""
  outputs.check_folder(str(Path(output).parent), "--output")
  configuration.load([_RUN_FILE, *files], bindings)
  data = configuration.build(Data, scope="train")
  # As bytes, whatever VOCABULARY says: the texts come back unharmed.
  data = dataclasses.replace(
    data,
    vocabulary="bytes",
    extra_ids=0,
    lengths=dict.fromkeys(data.lengths, 1 << 20),
    cache="",
  )
  with tempfile.TemporaryDirectory() as scratch:
    texts = _texts(
      open_cache(data, dataclasses.replace(folders, cache_dir=scratch))
    )
    made = train_sentencepiece(
      texts, size, Path(output).expanduser(), split_digits=True
    )
  print(f"{made.words}: {output}")
  print(f"use it with --gin.VOCABULARY={output} --gin.EXTRA_IDS=0")


def _texts(cache: TokenCache) -> Iterator[str]:
  """Prompts and targets, row by row."""
  for start in range(0, len(cache), _ROWS_AT_ONCE):
    stop = min(start + _ROWS_AT_ONCE, len(cache))
    for row in cache.read(range(start, stop)):
      yield row.prompt
      yield cache.vocabulary.decode(row.targets)
