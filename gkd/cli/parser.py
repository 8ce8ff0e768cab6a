"""Flags of the `gkd` command; runs nothing and imports only the help texts."""

import argparse
from typing import Any

from gkd import __version__
from gkd.cli import help_pages

_SWITCH = "store_true"
_LIST = {"action": "append", "default": []}


def _flag(name: str, help: str, **kwargs: Any) -> tuple[str, dict[str, Any]]:
  shown = " (default: %(default)s)" if kwargs.get("default") else ""
  return name, {"help": help + shown, **kwargs}


_GIN = _flag(
  "--gin_file",
  "a gin file; may be repeated, see below",
  metavar="FILE",
  **_LIST,
)
_GIN_USAGE = "%(prog)s --gin_file=FILE … [--gin.NAME=VALUE …] [options]"
_SPLITS = ("validation", "test")
_TYPES = ("float32", "bfloat16")
# Of each command, or command and action; the pages say more.
_FLAGS = {
  "quickstart": [
    _flag(
      "--output",
      "folder of all results; one that exists is continued",
      default="runs/quickstart",
      metavar="DIR",
    ),
    _flag("--train_teacher", "train the teacher anew", action=_SWITCH),
    (
      "--seeds",
      {
        "help": "repeat everything with each of these (default: 0)",
        "type": int,
        "nargs": "+",
        "default": [0],
        "metavar": "SEED",
      },
    ),
    _flag("--split", "scored in the table", choices=_SPLITS, default="test"),
  ],
  "train": [_GIN],
  "evaluate": [
    _GIN,
    _flag("--through_seqio", "compare with seqio.Evaluator", action=_SWITCH),
  ],
  "sample": [_GIN],
  "cache": [],
  "cache make": [
    _GIN,
    _flag(
      "--split",
      "a split (default: those of the gin file); may be repeated",
      **_LIST,
    ),
    _flag(
      "--workers",
      "processes that tokenise (default: one for each core, at least two)",
      type=int,
      metavar="N",
    ),
  ],
  "cache vocabulary": [
    _GIN,
    _flag("--size", "number of ids", type=int, required=True),
    _flag("--output", "the file to write", metavar="FILE", required=True),
  ],
  "cache list": [],
  "cache check": [
    _flag("path", "folder of caches (default: CACHE_DIR)", nargs="*"),
  ],
  "convert": [
    _flag("source", "a model in any of the formats", metavar="SRC"),
    _flag(
      "destination",
      "the folder to write; not needed with --dry_run",
      nargs="?",
      metavar="DST",
    ),
    _flag(
      "--to", "format to write", choices=("gkd", "t5x", "hf"), required=True
    ),
    _flag("--dry_run", "list all arrays, write nothing", action=_SWITCH),
    _flag(
      "--dtype",
      "cast the parameters (default: as they are; bfloat16 loses bits)",
      choices=_TYPES,
    ),
    _flag(
      "--step",
      "of the checkpoint: chooses one of several (default: the newest), or says"
      " it where the source does not",
      type=int,
      metavar="N",
    ),
    _flag(
      "--slots",
      "convert Adafactor's slots too, so that a run of T5X can go on",
      action=_SWITCH,
    ),
    _flag(
      "--tokenizer",
      "a folder with a tokenizer, a SentencePiece file, bytes or none (default:"
      " the one beside the source)",
      metavar="PATH",
    ),
    _flag(
      "--set",
      "a field of T5Config that the source does not say; may be repeated",
      metavar="NAME=VALUE",
      **_LIST,
    ),
    *(
      _flag(
        f"--{name}",
        f"licence of {what}, for the model card (--to=hf)",
        default="",
        metavar="NAME",
      )
      for name, what in (
        ("license", "the exported model"),
        ("teacher_license", "its teacher"),
        ("data_license", "its training data"),
      )
    ),
  ],
  "report": [
    _flag(
      "dirs",
      "a run, an evaluation or a folder of them",
      nargs="+",
      metavar="DIR",
    ),
    _flag("--output", "the page", default="report.html", metavar="FILE"),
    _flag("--plots", "also write PNGs here", default="", metavar="DIR"),
  ],
  "bench": [
    _GIN,
    _flag("--rounds", "timed steps", type=int, default=20),
    _flag(
      "--output", "the file to write", default="bench.json", metavar="FILE"
    ),
  ],
}


def build(data_dir: str, cache_dir: str) -> argparse.ArgumentParser:
  """The parser of the whole command, with these folders as defaults."""
  parser = _Parser(
    prog="gkd",
    description=help_pages.TOP,
    epilog=help_pages.TOP_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--version", action="version", version=f"gkd {__version__}"
  )
  parsers = {"": parser}
  groups = {}
  for name, flags in _FLAGS.items():
    above, _, own_name = name.rpartition(" ")
    if above not in groups:
      groups[above] = parsers[above].add_subparsers(
        dest="action" if above else "command",
        metavar="ACTION" if above else "COMMAND",
        required=True,
        parser_class=_Parser,
      )
    page = help_pages.PAGES[name]
    parsers[name] = groups[above].add_parser(
      own_name,
      help=page.summary,
      usage=_GIN_USAGE if page.takes_gin and not above else None,
      description=f"{page.summary[0].upper()}{page.summary[1:]}.",
      epilog=page.epilog,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    for flag, arguments in flags:
      parsers[name].add_argument(flag, **arguments)
    if page.takes_gin or above == "cache":
      _add_folder_flags(parsers[name], data_dir, cache_dir)
  return parser


class _Parser(argparse.ArgumentParser):
  """argparse with errors of one line."""

  def error(self, message: str):
    self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _add_folder_flags(
  parser: argparse.ArgumentParser, data_dir: str, cache_dir: str
) -> None:
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
