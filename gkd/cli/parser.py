"""Flags and help texts of the `gkd` command; runs and imports nothing else."""

import argparse

from gkd import __version__
from gkd.cli import help_pages


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
  commands = parser.add_subparsers(
    dest="command", metavar="COMMAND", required=True, parser_class=_Parser
  )
  folders = (data_dir, cache_dir)
  _add_quickstart(commands)
  _add_gin_command(commands, folders, "train")
  _add_evaluate(commands, folders)
  _add_gin_command(commands, folders, "sample")
  _add_cache(commands, folders)
  _add_convert(commands)
  _add_report(commands)
  _add_bench(commands, folders)
  return parser


class _Parser(argparse.ArgumentParser):
  """argparse with errors of one line."""

  def error(self, message: str):
    self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _add_command(commands, name, page=""):
  """Adds a command whose help is the page of this name in the manual."""
  page = help_pages.PAGES[page or name]
  return commands.add_parser(
    name,
    help=page.summary,
    description=f"{page.summary[0].upper()}{page.summary[1:]}.",
    epilog=page.epilog,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )


def _add_gin_command(commands, folders, name):
  parser = _add_command(commands, name)
  parser.usage = "%(prog)s --gin_file=FILE … [--gin.NAME=VALUE …] [options]"
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
    help="token caches, and copies of foreign checkpoints in models/ (default:"
    " GKD_CACHE_DIR or ~/.cache/gkd/data)",
  )


def _add_evaluate(commands, folders) -> None:
  parser = _add_gin_command(commands, folders, "evaluate")
  parser.add_argument(
    "--through_seqio",
    action="store_true",
    help="have seqio.Evaluator score the same predictions, and fail if its"
    " numbers are not ours; needs TensorFlow and the raw data",
  )


def _add_quickstart(commands) -> None:
  parser = _add_command(commands, "quickstart")
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
  parser = _add_command(commands, "cache")
  actions = parser.add_subparsers(
    dest="action", metavar="ACTION", required=True, parser_class=_Parser
  )
  make = _add_command(actions, "make", "cache make")
  _add_gin_flags(make)
  _add_folder_flags(make, folders)
  make.add_argument(
    "--split",
    action="append",
    default=[],
    help="a split (default: those of the gin file); may be repeated",
  )
  make.add_argument(
    "--workers",
    type=int,
    metavar="N",
    help="processes that tokenise (default: one for each core, at least two)",
  )
  made = _add_command(actions, "vocabulary", "cache vocabulary")
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
  show = _add_command(actions, "list", "cache list")
  _add_folder_flags(show, folders)
  check = _add_command(actions, "check", "cache check")
  check.add_argument(
    "path",
    nargs="*",
    metavar="PATH",
    help="folder of a cache, or one of such folders (default: all caches in"
    " CACHE_DIR)",
  )
  _add_folder_flags(check, folders)


def _add_convert(commands) -> None:
  parser = _add_command(commands, "convert")
  parser.add_argument(
    "source", metavar="SRC", help="a model in any of the formats; see below"
  )
  parser.add_argument(
    "destination",
    nargs="?",
    default="",
    metavar="DST",
    help="the folder to write; may be left out with --dry_run",
  )
  parser.add_argument(
    "--to",
    choices=("gkd", "t5x", "hf"),
    required=True,
    help="the format to write",
  )
  parser.add_argument(
    "--dry_run",
    action="store_true",
    help="write nothing; list every array with its name there and here, shape"
    " and type",
  )
  parser.add_argument(
    "--dtype",
    choices=("float32", "bfloat16"),
    help="cast the parameters (default: as they are; bfloat16 loses bits)",
  )
  parser.add_argument(
    "--step",
    type=int,
    metavar="N",
    help="of the checkpoint: chooses one of a folder of several (default: the"
    " newest; of a run the number of its checkpoint), or says it where the"
    " source does not",
  )
  parser.add_argument(
    "--slots",
    action="store_true",
    help="convert Adafactor's slots too, so that a run of T5X can go on",
  )
  parser.add_argument(
    "--tokenizer",
    metavar="PATH",
    help="a folder with a tokenizer, a SentencePiece file, bytes, or none"
    " (default: the one beside the source)",
  )
  parser.add_argument(
    "--set",
    action="append",
    default=[],
    metavar="NAME=VALUE",
    help="a field of T5Config that the source does not say; may be repeated",
  )
  for name, what in (
    ("license", "the exported model"),
    ("teacher_license", "its teacher"),
    ("data_license", "its training data"),
  ):
    parser.add_argument(
      f"--{name}",
      default="",
      metavar="NAME",
      help=f"licence of {what}, for the model card (--to=hf)",
    )


def _add_report(commands) -> None:
  parser = _add_command(commands, "report")
  parser.add_argument(
    "dirs",
    nargs="+",
    metavar="DIR",
    help="MODEL_DIR of a run or an evaluation, or a folder of such folders",
  )
  parser.add_argument(
    "--output",
    default="report.html",
    metavar="FILE",
    help="the page (default: %(default)s)",
  )
  parser.add_argument(
    "--plots",
    default="",
    metavar="DIR",
    help="also write the plots, each as a PNG, into this folder",
  )


def _add_bench(commands, folders) -> None:
  parser = _add_gin_command(commands, folders, "bench")
  parser.add_argument(
    "--rounds", type=int, default=20, help="timed steps (default: 20)"
  )
  parser.add_argument(
    "--output", default="bench.json", help="default: %(default)s"
  )
