"""Command lines of tests, and the tiny caches that they read."""

from gkd.cli import main as command
from gkd.cli import train_command
from gkd.config import configuration
from gkd.config.command_records import TrainConfig
from gkd.config.records import Folders
from gkd.text.chain_addition import CHARACTERS
from gkd.text.chain_addition import ChainAddition
from gkd.text.vocabulary import load
from tests import tiny

LENGTHS = {"inputs": 16, "targets": 32}  # of test/tiny.gin


def arguments(name, *flags, file=None, **macros) -> list[str]:
  """`gkd NAME` with test/NAME.gin or another file."""
  bindings = [f"--gin.{binding}" for binding in _bindings(macros)]
  return [name, f"--gin_file={file or f'test/{name}.gin'}", *flags, *bindings]


def _bindings(macros) -> list[str]:
  return [f"{macro}={value}" for macro, value in macros.items()]


def error_of(arguments, capsys) -> str:
  """The one line of a command that must end with exit code 2."""
  capsys.readouterr()
  assert command.main(arguments) == 2
  captured = capsys.readouterr()
  line = captured.err.strip().splitlines()[-1]
  assert line.startswith("gkd: ")
  assert "Traceback" not in captured.err
  return line


def mistakes(table: str) -> list[tuple[list[str], str]]:
  """(values, message) of a table: "NAME=VALUE; --flag=x", then a message."""
  lines = [line.strip() for line in table.strip().splitlines()]
  values = [line.split("; ") for line in lines[::2]]
  return list(zip(values, lines[1::2], strict=True))


def flags(values: list[str]) -> list[str]:
  return [x if x.startswith("--") else f"--gin.{x}" for x in values]


def train_config(files, *bindings, **macros) -> TrainConfig:
  """Of one file or a list of them; bindings come after the macros."""
  files = [files] if isinstance(files, str) else files
  configuration.load(files, [*_bindings(macros), *bindings])
  return configuration.build(TrainConfig)


def prepare(file, *bindings, cache_dir="", **macros):
  """The run that `gkd train` would start."""
  config = train_config(file, *bindings, **macros)
  return train_command.prepare(config, Folders("", str(cache_dir)))


def write_cache(path, split, *, rows=48, characters=CHARACTERS, **changes):
  """A cache of the task of test/tiny.gin; returns its path."""
  info = {"task": "chain_addition_easy", "lengths": LENGTHS, **changes}
  cache = tiny.make_cache(
    path,
    split=split,
    rows=rows,
    chains=ChainAddition(min_terms=3, max_terms=3),
    vocabulary=load(f"characters:{characters}"),
    **info,
  )
  return cache.path


def write_caches(folder) -> dict[str, str]:
  """Training rows and rows to evaluate on, by macro."""
  return {
    "TRAIN_CACHE": write_cache(folder / "train", "train"),
    "EVAL_CACHE": write_cache(folder / "eval", "validation", rows=8),
  }
