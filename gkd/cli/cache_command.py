"""`gkd cache`: make, list, check, export caches; train a vocabulary."""

import argparse
import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import itertools
from pathlib import Path
import shlex
import sys
import tempfile
from typing import Any

from gkd import files
from gkd.cli import cache_table
from gkd.cli.parser import DEFAULT_CACHE_DIR
from gkd.config import configuration
from gkd.config import gin_table
from gkd.config.datasets import check_files
from gkd.config.datasets import open_mixture
from gkd.config.records import DataConfig
from gkd.config.records import Folders
from gkd.data.builder import build_cache
from gkd.data.builder import contamination
from gkd.data.builder import tokenise
from gkd.data.cache import TokenCache
from gkd.data.cache_info import FEATURES
from gkd.data.cache_info import lossy
from gkd.data.completions.export import export_text
from gkd.progress import Progress
from gkd.text.sentencepiece_training import train_sentencepiece
from gkd.text.vocabulary import Vocabulary
from gkd.types import UserError

_ROWS_AT_ONCE = 1024
_UNCUT = 1 << 20  # tokens
_QUIET_SECONDS = 2.0


def cache(args: argparse.Namespace, folders: Folders) -> None:
  """Runs the action with its parsed flags."""
  if hasattr(args, "gin_file"):
    configuration.load(
      ["runs/data.gin", *args.gin_file], args.bindings, f"cache {args.action}"
    )
  actions = {
    "make": make,
    "vocabulary": vocabulary,
    "list": show,
    "check": check,
    "export": export,
  }
  actions[args.action](args, folders)


def make(args: argparse.Namespace, folders: Folders) -> None:
  """Makes the caches of the loaded configuration; both splits without --split.

  Those that exist are read and compared; what is damaged or stale is made anew.
  """
  splits = configured_splits(args.split)
  check_files(splits, folders)
  caches: list[TokenCache] = []
  for data in splits:
    mixture = open_mixture(
      data, folders, num_workers=args.workers, rebuild=True
    )
    for cache in mixture.caches:
      for made in filter(None, (cache, cache.teacher_prompts)):
        print(cache_table.entry(made, folders.data_dir))
    caches += mixture.caches
  _print_repeats(caches)
  flags = [f"--gin_file={file}" for file in args.gin_file]
  flags += [f"--gin.{binding}" for binding in args.bindings]
  flags += [f"--gin.TRAIN_SPLIT={split}" for split in args.split[:1]]
  flags.append(f"--cache_dir={folders.cache_dir}")
  print(
    "next: these caches are found by the same flags, without TensorFlow; add"
    " the model and the\nknobs that the header of runs/sft.gin lists:\n"
    f"  {_program()} train --gin_file=runs/sft.gin"
    f" {' '.join(map(_quoted, flags))}"
    " --gin.MODEL_DIR=… …"
  )


def configured_splits(names: Sequence[str]) -> list[DataConfig]:
  """The splits of these names, or those of the loaded configuration."""
  why = "gkd cache make makes caches and reads none"
  configuration.refuse_idle_flags([(["TRAIN_CACHE", "EVAL_CACHE"], why)])
  if names:
    idle = ["TRAIN_SPLIT", "EVAL_SPLIT"]
    idle += ["EVAL_TASK"] * gin_table.is_bound("TRAIN_SPLIT")
    configuration.refuse_idle_flags([(idle, "--split says which to make")])
  # A task that is only evaluated, as SVAMP, names no training split.
  scopes = {"train": "TRAIN_SPLIT", "eval": "EVAL_SPLIT"}
  splits = [
    configuration.build(DataConfig, scope=scope)
    for scope, name in scopes.items()
    if gin_table.is_bound(name)
  ]
  if not splits:
    raise UserError(
      "no TRAIN_SPLIT and no EVAL_SPLIT; add a --gin_file of tasks/"
    )
  return [dataclasses.replace(splits[0], split=n) for n in names] or splits


def show(args: argparse.Namespace, folders: Folders) -> None:
  """Lists what is in the cache folder, whole, stale, damaged or half-made."""
  texts = list(cache_table.entries(folders.cache_dir, folders.data_dir))
  print("\n".join(texts) or _no_caches(args.cache_dir))


def check(args: argparse.Namespace, folders: Folders) -> None:
  """Reads every byte of caches, all without paths, and compares the hashes.

  Raises:
    UserError: some are not sound; the others were checked as well.
  """
  paths = []
  for root in args.path or [folders.cache_dir]:
    root = files.local_path(root)
    paths += cache_table.cache_folders(root) or [root] * bool(args.path)
  if not paths:
    print(_no_caches(args.cache_dir))
    return
  sound, wrong = [], []
  for path in dict.fromkeys(paths):
    try:
      cache = TokenCache(path)
      _verify(cache)
    except UserError as error:
      print(f"NOT SOUND: {error}")
      wrong.append(path)
    else:
      print(cache_table.entry(cache, folders.data_dir, verified=True))
      sound.append(cache)
  _print_repeats(sound)
  if wrong:
    raise UserError(
      f"{len(wrong)} of {len(sound) + len(wrong)} caches are not sound:"
      f" {', '.join(map(str, wrong))}; see above what to do"
    )


def export(args: argparse.Namespace, folders: Folders) -> None:
  """Writes completions as JSON lines, which DATA_FILES reads."""
  del folders
  if not args.output.endswith(".jsonl"):
    raise UserError(
      f"--output is {args.output!r}; give a name that ends in .jsonl, by which"
      " DATA_FILES knows JSON lines"
    )
  files.check_file(args.output, "--output")
  output = files.local_path(args.output)
  print(export_text(TokenCache(files.local_path(args.path)), output))
  print(
    f"train on it with --gin.DATA_FILES=\"{{'train': '{output}'}}\" and the"
    " tokenizer of the student (docs/data.md)"
  )


def _no_caches(cache_dir: str) -> str:
  """That a folder has no caches; refused where it is a slip of the user."""
  is_there = files.local_path(cache_dir).is_dir()
  if cache_dir != DEFAULT_CACHE_DIR and not is_there:
    raise UserError(
      f"--cache_dir {cache_dir!r} does not exist or is no folder; give the one"
      " in which gkd cache make made caches"
    )
  return f"no caches in {cache_dir}; make one with gkd cache make"


def vocabulary(args: argparse.Namespace, folders: Folders) -> None:
  """Trains a SentencePiece vocabulary on a task's training texts."""
  output = args.output
  folder = files.local_path(output).parent
  files.check_folder(str(folder), "--output")
  if folder.is_dir():
    files.check_file(output, "--output")
  why = "texts of TRAIN_SPLIT are read whole and as bytes"
  names = "TRAIN_CACHE VOCABULARY EXTRA_IDS TASK_FEATURE_LENGTHS"
  names += " EVAL_CACHE EVAL_TASK EVAL_SPLIT"
  configuration.refuse_idle_flags([(names.split(), why)])
  data = configuration.build(DataConfig, scope="train")
  # As bytes, whatever VOCABULARY says: the texts come back unharmed.
  data = dataclasses.replace(
    data,
    vocabulary="bytes",
    extra_ids=0,
    lengths=dict.fromkeys(FEATURES, _UNCUT),
    cache="",
  )
  check_files([data], folders)
  with tempfile.TemporaryDirectory() as scratch:
    scratch_folders = dataclasses.replace(folders, cache_dir=scratch)
    caches = open_mixture(data, scratch_folders).caches
    trained = train_sentencepiece(
      itertools.chain.from_iterable(_texts(caches)),
      args.size,
      files.local_path(output),
      split_digits=True,
    )
    info = _described(trained, caches)
  print(f"{trained.describe()}: {output}")
  print(cache_table.token_lengths(info))
  for line in lossy(info):
    print(line)
  print(f"use it with --gin.VOCABULARY={output} --gin.EXTRA_IDS=0")


def _verify(cache: TokenCache) -> None:
  with Progress(
    cache_table.num_bytes(cache),
    description=f"reading {cache_table.name(cache)}",
    unit="byte",
    delay=_QUIET_SECONDS,
  ) as progress:
    cache.verify(progress.update)


def _print_repeats(caches: Iterable[TokenCache]) -> None:
  """Prompts that stand twice within a cache, or in two of them."""
  caches = list({cache.path: cache for cache in caches}.values())
  for cache in caches:
    repeats = contamination.within(cache)
    # Several completions of each prompt are what `gkd sample` is for.
    if repeats.rows and "written_by" not in cache.info:
      print(
        f"repeated prompts: {_share(repeats.rows, cache)} stand after another"
        f" with the same prompt: {_counted(repeats.prompts, 'prompt')}, such as"
        f" {repeats.quoted}"
      )
  any_shared = False
  for left, right in itertools.combinations(caches, 2):
    repeats = contamination.shared(left, right)
    if repeats.rows:
      any_shared = True
      verb = "is" if repeats.prompts == 1 else "are"
      print(
        f"shared prompts: {_share(repeats.rows, right)}:"
        f" {_counted(repeats.prompts, 'prompt')} {verb} also in"
        f" {cache_table.name(left)}, such as {repeats.quoted}"
      )
  if len(caches) > 1 and not any_shared:
    print("shared prompts: none, no two of these caches have one in common")


def _share(rows: int, cache: TokenCache) -> str:
  rows_of = f"{_counted(rows, 'row')} of {cache_table.name(cache)}"
  return f"{rows_of} ({rows / len(cache):.2%})"


def _counted(number: int, noun: str) -> str:
  return f"{number:,} {noun}{'s' * (number != 1)}"


def _program() -> str:
  """How this program was called: the script, or the module by Python."""
  is_module = Path(sys.argv[0]).parts[-2:] == ("gkd", "__main__.py")
  return "python -m gkd" if is_module else "gkd"


def _quoted(flag: str) -> str:
  """As a shell wants it; a dict of names in quotes stays readable."""
  if "'" in flag and not set('"$`\\!') & set(flag):
    return f'"{flag}"'
  return shlex.quote(flag)


def _described(
  vocabulary: Vocabulary, caches: Sequence[TokenCache]
) -> dict[str, Any]:
  """How the texts of caches fare in a vocabulary, as info.json has it."""
  lengths, add_eos = (dict.fromkeys(FEATURES, x) for x in (_UNCUT, True))
  recipe = tokenise.Recipe("", lengths, vocabulary, None, add_eos)
  counts, notes = collections.Counter(), {}
  texts = _texts(caches)
  while pairs := list(itertools.islice(texts, _ROWS_AT_ONCE)):
    rows = [dict(zip(FEATURES, pair, strict=True)) for pair in pairs]
    for _ in tokenise.rows(recipe, tokenise.Job(0, 0, rows), counts, notes):
      pass
  return build_cache.token_facts(counts, notes) | counts


def _texts(caches: Sequence[TokenCache]) -> Iterator[tuple[str, str]]:
  """Prompt and target, row by row."""
  for cache in caches:
    for start in range(0, len(cache), _ROWS_AT_ONCE):
      stop = min(start + _ROWS_AT_ONCE, len(cache))
      for row in cache.read(range(start, stop)):
        yield row.prompt, cache.vocabulary.decode(row.targets)
