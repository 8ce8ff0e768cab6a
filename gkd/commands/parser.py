"""Flags and help texts of the `gkd` command; runs and imports nothing else."""

import argparse

from gkd import __version__

_DESCRIPTION = """\
Distils a large sequence model (the teacher) into a small one (the student),
on the student's own answers. New here? Run: gkd quickstart
"""
_GIN_HELP = """\

configuration:
  --gin_file=FILE    a file of configs/ or your own; may be given several times,
                     later files override earlier ones. Start with a file of
                     runs/ or experiments/; the header of each says what it does
  --gin.NAME=VALUE   sets one value: --gin.BATCH_SIZE=8
"""


def build(data_dir: str, cache_dir: str) -> argparse.ArgumentParser:
  """The parser of the whole command, with these folders as defaults."""
  parser = _Parser(
    prog="gkd",
    description=_DESCRIPTION,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--version", action="version", version=f"gkd {__version__}"
  )
  commands = parser.add_subparsers(
    dest="command", metavar="COMMAND", required=True, parser_class=_Parser
  )
  folders = (data_dir, cache_dir)
  _add_quickstart(commands)
  _add_gin_command(
    commands,
    folders,
    "train",
    "train a student: fine-tuning or distillation",
    "gkd train --gin_file=test/distill.gin --gin.MODEL_DIR=/tmp/run",
  )
  _add_gin_command(
    commands,
    folders,
    "evaluate",
    "score a checkpoint on a task by generation",
    "gkd evaluate --gin_file=test/evaluate.gin --gin.MODEL_DIR=/tmp/scores"
    " --gin.INITIAL_CHECKPOINT_PATH=/tmp/run",
  )
  _add_gin_command(
    commands,
    folders,
    "sample",
    "write completions of prompts into a cache that training reads",
    "gkd sample --gin_file=test/sample.gin --gin.OUTPUT_DIR=/tmp/answers"
    " --gin.INITIAL_CHECKPOINT_PATH=/tmp/run",
  )
  _add_cache(commands, folders)
  _add_report(commands)
  _add_bench(commands, folders)
  return parser


class _Parser(argparse.ArgumentParser):
  """argparse with errors of one line."""

  def error(self, message: str):
    self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _add_command(commands, name, summary, example):
  parser = commands.add_parser(
    name,
    help=summary,
    description=f"{summary[0].upper()}{summary[1:]}.",
    epilog=f"example:\n  {example}",
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  return parser


def _add_gin_command(commands, folders, name, summary, example):
  parser = _add_command(commands, name, summary, example)
  parser.epilog = f"{_GIN_HELP.lstrip()}\n{parser.epilog}"
  _add_gin_flags(parser)
  _add_folder_flags(parser, folders)
  return parser


def _add_gin_flags(parser) -> None:
  parser.add_argument(
    "--gin_file",
    action="append",
    default=[],
    metavar="FILE",
    help="a gin file; see below",
  )


def _add_folder_flags(parser, folders) -> None:
  data_dir, cache_dir = folders
  parser.add_argument(
    "--data_dir",
    default=data_dir,
    metavar="DIR",
    help="raw files that tasks read (default: GKD_DATA_DIR)",
  )
  parser.add_argument(
    "--cache_dir",
    default=cache_dir,
    metavar="DIR",
    help="token caches (default: GKD_CACHE_DIR or ~/.cache/gkd/data)",
  )


def _add_quickstart(commands) -> None:
  parser = _add_command(
    commands,
    "quickstart",
    "distil a small T5 on this machine and compare the methods",
    "gkd quickstart --output=runs/quickstart",
  )
  parser.add_argument(
    "--output",
    default="runs/quickstart",
    metavar="DIR",
    help="where everything goes (default: %(default)s); a folder that exists is"
    " continued",
  )
  parser.add_argument(
    "--train_teacher",
    action="store_true",
    help="train the teacher anew instead of taking the one that comes along",
  )
  parser.add_argument(
    "--seeds",
    type=int,
    nargs="+",
    default=[0],
    help="repeat everything for each of these seeds (default: 0)",
  )
  parser.add_argument(
    "--split",
    choices=("validation", "test"),
    default="test",
    help="what the table is about; settings are chosen on validation"
    " (default: %(default)s)",
  )


def _add_cache(commands, folders) -> None:
  parser = commands.add_parser(
    "cache",
    help="make, list and check token caches; train a vocabulary",
    description="Token caches: tasks tokenised once, then read by training.",
  )
  actions = parser.add_subparsers(
    dest="action", metavar="ACTION", required=True, parser_class=_Parser
  )
  make = _add_command(
    actions,
    "make",
    "tokenise the splits of a task",
    "gkd cache make --gin_file=tasks/gsm8k.gin --data_dir=data",
  )
  _add_gin_flags(make)
  _add_folder_flags(make, folders)
  make.add_argument(
    "--split",
    action="append",
    default=[],
    help="a split (default: those of the gin file); may be repeated",
  )
  made = _add_command(
    actions,
    "vocabulary",
    "train a SentencePiece vocabulary on a task's training texts",
    "gkd cache vocabulary --gin_file=tasks/gsm8k.gin --size=4096"
    " --output=runs/gsm8k/vocabulary.model",
  )
  _add_gin_flags(made)
  _add_folder_flags(made, folders)
  made.add_argument(
    "--size",
    type=int,
    required=True,
    help="number of ids, with the special ids and 256 bytes for characters"
    " that have no piece",
  )
  made.add_argument(
    "--output",
    required=True,
    metavar="FILE",
    help="the file to write, a SentencePiece model",
  )
  show = _add_command(actions, "list", "list the caches", "gkd cache list")
  _add_folder_flags(show, folders)
  check = _add_command(
    actions,
    "check",
    "read every byte of a cache and compare its hashes",
    "gkd cache check ~/.cache/gkd/data/gsm8k/train-0123456789ab",
  )
  check.add_argument("path", nargs="+", help="folder of a cache")


def _add_report(commands) -> None:
  parser = _add_command(
    commands,
    "report",
    "turn run folders into one self-contained HTML page",
    "gkd report runs/sft runs/gkd --output=report.html",
  )
  parser.add_argument("dirs", nargs="+", metavar="DIR", help="run folders")
  parser.add_argument(
    "--output", default="report.html", help="default: %(default)s"
  )


def _add_bench(commands, folders) -> None:
  parser = _add_gin_command(
    commands,
    folders,
    "bench",
    "time sampling and updates of a distillation run",
    "gkd bench --gin_file=test/distill.gin --gin.MODEL_DIR=/tmp/bench"
    " --rounds=20",
  )
  parser.add_argument(
    "--rounds", type=int, default=20, help="timed steps (default: 20)"
  )
  parser.add_argument(
    "--output", default="bench.json", help="default: %(default)s"
  )
