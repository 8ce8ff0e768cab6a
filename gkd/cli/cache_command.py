"""`gkd cache`: make, list and check token caches; train a vocabulary."""

import argparse
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import itertools
from pathlib import Path
import shlex
import tempfile

from gkd import files
from gkd.cli import cache_table
from gkd.config import configuration
from gkd.config import gin_table
from gkd.config.datasets import open_mixture
from gkd.config.records import DataConfig
from gkd.config.records import Folders
from gkd.data.builder import contamination
from gkd.data.cache import TokenCache
from gkd.progress import Progress
from gkd.text.sentencepiece_training import train_sentencepiece
from gkd.types import UserError

_RUN_FILE = "runs/data.gin"
_ROWS_AT_ONCE = 1024
_QUIET_SECONDS = 2.0


def cache(args: argparse.Namespace, folders: Folders) -> None:
  """Runs the action with its parsed flags."""
  if args.action == "make":
    make(args.gin_file, args.bindings, args.split, folders, args.workers)
  elif args.action == "vocabulary":
    vocabulary(args.gin_file, args.bindings, args.size, args.output, folders)
  elif args.action == "list":
    show(folders)
  else:
    check(args.path, folders)


def make(
  gin_files: Sequence[str],
  bindings: Sequence[str],
  splits: Sequence[str],
  folders: Folders,
  num_workers: int | None = None,
) -> None:
  """Makes the caches of a task file; both its splits without `splits`.

  Those that exist are read and compared; what is damaged or stale is made anew.
  """
  configuration.load([_RUN_FILE, *gin_files], bindings)
  # A task that is only evaluated, as SVAMP, names no training split.
  scopes = {"train": "TRAIN_SPLIT", "eval": "EVAL_SPLIT"}
  wanted = [
    configuration.build(DataConfig, scope=scope)
    for scope, name in scopes.items()
    if gin_table.is_bound(name)
  ]
  if not wanted:
    raise UserError(
      "no TRAIN_SPLIT and no EVAL_SPLIT; add a --gin_file of tasks/"
    )
  if splits:
    wanted = [dataclasses.replace(wanted[0], split=s) for s in splits]
  made: list[TokenCache] = []
  for data in wanted:
    mixture = open_mixture(data, folders, num_workers=num_workers, check=True)
    for cache in mixture.caches:
      print(cache_table.entry(cache, folders.data_dir))
    made += mixture.caches
  _print_repeats(made)
  if splits:
    bindings = [*bindings, f"TRAIN_SPLIT={splits[0]}"]
  print(_next(gin_files, bindings, folders))


def show(folders: Folders) -> None:
  """Lists what is in the cache folder, whole, stale, damaged or half-made."""
  count = 0
  for text in cache_table.entries(folders.cache_dir, folders.data_dir):
    print(text)
    count += 1
  if not count:
    print(f"no caches in {folders.cache_dir}; make one with gkd cache make")


def check(paths: Sequence[str], folders: Folders) -> None:
  """Reads every byte of caches and compares the hashes.

  Args:
    paths: folders of caches, or folders of such folders; none for all caches of
      the cache folder.
    folders: where these and the raw files are.

  Raises:
    UserError: some are not sound; the others were checked as well.
  """
  given = [Path(path).expanduser() for path in paths]
  places = [
    place
    for path in given or [Path(folders.cache_dir)]
    for place in cache_table.found(path) or [path][: len(given)]
  ]
  if not places:
    print(f"no caches in {folders.cache_dir}; make one with gkd cache make")
    return
  sound, wrong = [], []
  for place in dict.fromkeys(places):
    try:
      cache = TokenCache(place)
      _verify(cache)
    except UserError as error:
      print(f"NOT SOUND: {error}")
      wrong.append(place)
    else:
      print(cache_table.entry(cache, folders.data_dir, verified=True))
      sound.append(cache)
  _print_repeats(sound)
  if wrong:
    raise UserError(
      f"{len(wrong)} of {len(sound) + len(wrong)} caches are not sound:"
      f" {', '.join(map(str, wrong))}; see above what to do"
    )


def _verify(cache: TokenCache) -> None:
  progress = Progress(
    cache_table.num_bytes(cache) // 1_000_000,
    description=f"reading {cache_table.name(cache)}",
    unit="MB",
    delay=_QUIET_SECONDS,
  )
  done = 0

  def report(size: int) -> None:
    nonlocal done
    before, done = done, done + size
    progress.update(done // 1_000_000 - before // 1_000_000)

  with progress:
    cache.verify(report)


def _print_repeats(made: Iterable[TokenCache]) -> None:
  """Prompts that stand twice within a cache, or in two of them."""
  made = list({cache.path: cache for cache in made}.values())
  for cache in made:
    found = contamination.within(cache)
    # Several completions of each prompt are what `gkd sample` is for.
    if found.rows and "written_by" not in cache.info:
      print(
        f"repeated prompts: {_share(found.rows, cache)} stand after another"
        f" with the same prompt: {_counted(found.prompts, 'prompt')}, such as"
        f" {found.quoted}"
      )
  pairs = list(itertools.combinations(made, 2))
  any_shared = False
  for left, right in pairs:
    found = contamination.shared(left, right)
    if found.rows:
      any_shared = True
      verb = "is" if found.prompts == 1 else "are"
      print(
        f"shared prompts: {_share(found.rows, right)}:"
        f" {_counted(found.prompts, 'prompt')} {verb} also in"
        f" {cache_table.name(left)}, such as {found.quoted}"
      )
  if pairs and not any_shared:
    print("shared prompts: none, no two of these caches have one in common")


def _share(rows: int, cache: TokenCache) -> str:
  return (
    f"{_counted(rows, 'row')} of {cache_table.name(cache)}"
    f" ({rows / len(cache):.2%})"
  )


def _counted(number: int, noun: str) -> str:
  return f"{number:,} {noun}{'s' * (number != 1)}"


def _next(
  gin_files: Sequence[str], bindings: Sequence[str], folders: Folders
) -> str:
  flags = [f"--gin_file={file}" for file in gin_files]
  flags += [f"--gin.{binding}" for binding in bindings]
  flags += [f"--cache_dir={folders.cache_dir}"]
  return (
    "next: these caches are found by the same flags, without TensorFlow; add"
    " the model and the\nknobs that the header of runs/sft.gin lists:\n"
    f"  gkd train --gin_file=runs/sft.gin {' '.join(map(_quoted, flags))}"
    " --gin.MODEL_DIR=… …"
  )


def _quoted(flag: str) -> str:
  """As a shell wants it; a dict of names in quotes stays readable."""
  if "'" in flag and not set('"$`\\!') & set(flag):
    return f'"{flag}"'
  return shlex.quote(flag)


def vocabulary(
  gin_files: Sequence[str],
  bindings: Sequence[str],
  size: int,
  output: str,
  folders: Folders,
) -> None:
  """Trains a SentencePiece vocabulary on a task's training texts."""
  files.check_folder(str(Path(output).parent), "--output")
  configuration.load([_RUN_FILE, *gin_files], bindings)
  data = configuration.build(DataConfig, scope="train")
  # As bytes, whatever VOCABULARY says: the texts come back unharmed.
  data = dataclasses.replace(
    data,
    vocabulary="bytes",
    extra_ids=0,
    lengths=dict.fromkeys(data.lengths, 1 << 20),
    cache="",
  )
  with tempfile.TemporaryDirectory() as scratch:
    mixture = open_mixture(
      data, dataclasses.replace(folders, cache_dir=scratch)
    )
    made = train_sentencepiece(
      itertools.chain.from_iterable(map(_texts, mixture.caches)),
      size,
      Path(output).expanduser(),
      split_digits=True,
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
