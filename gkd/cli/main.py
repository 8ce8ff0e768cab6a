"""The `gkd` command: flags, folders and exit codes.

Environment variables are read here and nowhere below. Each command imports what
it needs when it runs, so that `gkd --help` is instant.

  gkd train --gin_file=runs/sft.gin --gin_file=tasks/gsm8k.gin --gin.NAME=VALUE

Exit code 0: done. 2: a mistake that the user can mend, a full disk included, in
one line on stderr. 1: the numbers of a run were not finite, also one line, with
the cause; nothing of that step was saved. 130 and 143: stopped by ctrl-C or
SIGTERM; training has saved its step. 75: a device failed, or of several
processes one died or was stuck; the same command goes on. Anything else is a
traceback: a bug.
"""

import argparse
from collections.abc import Sequence
import contextlib
import gc
import hashlib
import itertools
import logging
import os
from pathlib import Path
import platform
import re
import signal
import sys
import traceback

from gkd import disk_errors
from gkd import files
from gkd import host_memory
from gkd import processes
from gkd import watchdog
from gkd.cli import parser
from gkd.errors import UserError
from gkd.errors import is_text
from gkd.quiet_import import QuietImport
from gkd.terminal import Escaped
from gkd.terminal import ReaderGone
from gkd.training import preemption

# What JAX raises where a process cannot reach another one.
_OF_THE_NETWORK = re.compile("gloo|DEADLINE_EXCEEDED|UNAVAILABLE", re.I)
# And where a device fails; errors of Python functions that it calls are not.
_OF_A_DEVICE = re.compile(
  "(Jax|Xla)RuntimeError: (?!.*callback)"
  "(INTERNAL|ABORTED|DATA_LOSS|UNAVAILABLE)",
  re.I | re.S,
)
_RESULTS = {False: "quickstart", True: "real/grid"}
_TENSORFLOW = QuietImport("tensorflow")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command and returns the exit code."""
  argv = sys.argv[1:] if argv is None else argv
  # What is imported and traced stays; to search it for garbage after each 700
  # objects, as Python does, takes 7 % of a start.
  gc.set_threshold(10_000)
  # None where a shell closed it.
  out, errors = (s and Escaped(s) for s in (sys.stdout, sys.stderr))
  try:
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
      try:
        code = _run(argv)
        processes.leave(code)
        return code
      finally:
        print(end="", flush=True)
  except ReaderGone:  # `gkd … | head`, which has read enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE  # as a shell has it


def _run(argv: Sequence[str]) -> int:
  logging.basicConfig(format="%(message)s", stream=sys.stderr)
  for handler in logging.root.handlers:
    handler.addFilter(_is_for_users)
  # What libraries log below a warning is for their authors.
  logging.getLogger("gkd").setLevel(logging.INFO)
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  if _TENSORFLOW not in sys.meta_path:
    sys.meta_path.insert(0, _TENSORFLOW)
  try:
    if wrong := [argument for argument in argv if not is_text(argument)]:
      raise UserError(f"{wrong[0]!r} is not UTF-8; give another name or value")
    args = parse(argv)
    if args.bindings and not hasattr(args, "gin_file"):
      raise UserError(
        f"--gin.{args.bindings[0]}: `gkd {args.command}` takes no gin values;"
        " leave it out"
      )
    with preemption.terminable():
      _COMMANDS[args.command](args)
  except UserError as error:
    return _fail(error, 2)
  # Raised on purpose, with a sentence; arrays give NaN and no exception.
  except FloatingPointError as error:
    return _fail(error, 1)
  except KeyboardInterrupt as error:
    code = getattr(error, "exit_code", 130)  # of `preemption.Interrupted`
    text = str(error) or "interrupted; the same command goes on where it was"
    return _fail(text, code, alone=not getattr(error, "is_agreed", False))
  except Exception as error:
    watchdog.of_process.suspect()  # it may have come of a process that is gone
    text = disk_errors.reason(error)
    if isinstance(error, RuntimeError) and "home directory" in str(error):
      # Of `Path.expanduser`.
      text = "~NAME at the beginning of a path is of no user; give it in full"
    if text is not None:
      return _fail(text, 2)
    text = f"{type(error).__name__}: {error}"
    is_lost = _OF_A_DEVICE.match(text)
    if not is_lost and processes.count() == 1:
      raise
    is_lost = is_lost or _OF_THE_NETWORK.search(text)
    traceback.print_exc()
    return _fail(text, watchdog.RESTART if is_lost else 1)
  return 0


def _is_for_users(record: logging.LogRecord) -> bool:
  """Not a traceback that a thread of Orbax logs: its error is told by us."""
  return record.name == "gkd" or not record.exc_info


def _fail(error: Exception | str, code: int, *, alone: bool = True) -> int:
  """Prints the error in one line, and tells it to processes that go on."""
  text = " ".join(str(error).split())
  print(f"gkd: {text}", file=sys.stderr)
  if alone and processes.count() > 1:
    watchdog.of_process.fail(code, text)
  return code


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """The flags of a command; `bindings` has the "NAME=VALUE" of --gin."""
  prefix = "--gin."  # of names that argparse cannot know
  for flag, value in itertools.pairwise(argv):
    if flag.startswith(prefix) and "=" not in flag and value[:2] != "--":
      value = value.lstrip("=") or "VALUE"
      raise UserError(f"{flag} has no value; write {flag}={value}")
  args = argparse.Namespace(
    bindings=[x.removeprefix(prefix) for x in argv if x.startswith(prefix)],
    data_dir=os.environ.get("GKD_DATA_DIR", ""),
    cache_dir=os.environ.get("GKD_CACHE_DIR") or parser.DEFAULT_CACHE_DIR,
  )
  rest = [x for x in argv if not x.startswith(prefix)]
  return parser.build().parse_args(rest, args)


def _train(args) -> None:
  if args.verbose:
    logging.getLogger("gkd").setLevel(logging.DEBUG)
  folders = _join(args)
  from gkd.cli import train_command

  train_command.train(folders, dry_run=args.dry_run, profile=args.profile)


def _evaluate(args) -> None:
  folders = _join(args)
  from gkd.cli import evaluate_command

  evaluate_command.evaluate(folders, seqio=args.through_seqio)


def _sample(args) -> None:
  folders = _join(args)
  from gkd.cli import sample_command

  sample_command.sample(folders)


def _bench(args) -> None:
  from gkd.cli import bench_command

  bench_command.check_flags(args)
  folders = None
  if args.size is None:
    folders = _prepare(args)
  else:
    _begin_computing(args.compile_cache)
  bench_command.bench(args, folders)


def _plan(args) -> None:
  from gkd.plan import topology

  topology.prepare(args.topology)
  from gkd.cli import plan_command

  if args.output:
    files.check_file(args.output, "--output", plan_command.MARK)
  given = {binding.partition("=")[0] for binding in args.bindings}
  unread = ["MODEL_DIR=plan"]  # where nothing is written
  if "TEACHER_MODEL" in given:
    unread.append("TEACHER_CHECKPOINT_PATH=")
  args.bindings = [*unread, *args.bindings]
  _prepare(args)
  plan_command.plan(args.topology, _expanded(args.output))


def _report(args) -> None:
  from gkd.report import page
  from gkd.report import read

  files.check_file(args.output, "--output", page.MARK)
  runs = read.read(list(map(_expanded, args.dirs)))
  folder = _expanded(args.plots)
  if args.plots:
    page.check_plots(runs, folder, "--plots")
  print(f"written to {page.write_report(runs, _expanded(args.output))}")
  if args.plots:
    plots = page.write_plots(runs, folder)
    print(f"{len(plots)} plots in {args.plots}")


def _quickstart(args) -> None:
  defaults = dict.fromkeys(("gguf", "workers"))
  if args.real:
    defaults = {"train_teacher": False, "split": None}
  given = vars(args)
  if idle := [name for name in defaults if given[name] is not defaults[name]]:
    raise UserError(
      f"--{idle[0]} has no effect {'with' if args.real else 'without'} --real;"
      " leave it out"
    )
  args.output = args.output or f"runs/{_RESULTS[args.real]}"
  files.check_folder(args.output, "--output")
  if args.real:
    _quickstart_real(args)
    return
  _begin_computing()
  from gkd.experiments.quickstart import pipeline

  args.split = args.split or "test"
  pipeline.main(args)


def _quickstart_real(args) -> None:
  """What the head of experiments/real/grid.toml says, one after the other."""
  from gkd.experiments.real import prepare

  output, seeds = args.output, map(str, args.seeds)
  prepare.prepare(prepare.FOLDER, args.gguf)
  file = "experiments/real/grid.toml"
  grid = [f"--data_dir={prepare.FOLDER}", f"--output={output}"]
  workers = 2 if args.workers is None else args.workers
  grid += [f"--workers={workers}", "--seeds", *seeds]
  report = [f"--output={output}/report.html", f"--plots={output}/plots"]
  for argv in ["grid", file, *grid], ["report", output, *report]:
    step = parse(argv)
    _COMMANDS[step.command](step)


def _list(args) -> None:
  from gkd.cli import list_command

  print("\n".join(list_command.entries(args.kind)))


def _config(args) -> None:
  _prepare(args)
  from gkd.config import command_records as records
  from gkd.config import configuration

  kinds = records.EvaluateConfig, records.SampleConfig, records.TrainConfig
  kind = next(filter(configuration.describes, kinds), records.TrainConfig)
  configuration.build(kind)
  print(configuration.operative(), end="")


def _cache(args) -> None:
  from gkd.cli import cache_command

  cache_command.cache(args, _folders(args))


def _grid(args) -> None:
  folders = _folders(args)
  from gkd.cli import grid_command

  grid_command.grid(args, folders)


def _convert(args) -> None:
  import jax

  # Names and shapes are all it is asked for; an accelerator may be in use.
  jax.config.update("jax_platforms", "cpu")
  from gkd.cli import convert_command

  convert_command.convert(args)


def _join(args):
  """As `_prepare`, in a run of several processes, which have to agree."""
  processes.initialize(args.coordinator, args.num_processes, args.process_id)
  folders = _prepare(args)
  from gkd.config import configuration

  processes.agree("configuration", configuration.loaded())
  return folders


def _prepare(args):
  """Loads the configuration; returns the folders."""
  if not args.gin_file:
    raise UserError(
      f"`gkd {args.command}` needs a --gin_file, for example"
      f" --gin_file=runs/sft.gin; see gkd {args.command} --help"
    )
  _begin_computing(getattr(args, "compile_cache", None))
  from gkd import keys
  from gkd.config import configuration

  keys.check_flags()  # before data and checkpoints are read
  configuration.load(args.gin_file, args.bindings, args.command)
  return _folders(args)


def _folders(args):
  from gkd.config.records import Folders

  if args.data_dir and not os.path.isdir(_expanded(args.data_dir)):
    variable = "GKD_DATA_DIR"
    is_set = args.data_dir == os.environ.get(variable)
    raise UserError(
      f"{variable if is_set else '--data_dir'} {args.data_dir!r} does not exist"
      " or is no folder; give the one that holds the raw files, or --data_dir="
      " for none"
    )
  return Folders(_expanded(args.data_dir), _expanded(args.cache_dir))


def _expanded(path: str) -> str:
  """The path with "~" expanded; "" stays empty."""
  return str(files.local_path(path)) if path else ""


def _begin_computing(given: str | None = None) -> None:
  """Settings of a command that computes, before JAX has threads.

  Compiled programs outlive the process: a second run starts at once.
  `given` is --compile_cache; without it JAX's own setting counts.
  """
  if given == "":
    raise UserError("--compile_cache is empty; give a folder, or leave it out")
  if given:
    files.check_folder(given, "--compile_cache")
  host_memory.keep_freed()
  import jax

  if given or not jax.config.jax_compilation_cache_dir:
    cache = files.local_path(given or "~/.cache/gkd/compiled") / _processor()
    jax.config.update("jax_compilation_cache_dir", str(cache))
    # JAX keeps those of a second and more; a start has dozens of small ones.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _processor() -> str:
  """Hash of the kind of processor.

  Programs for a CPU hold its very instructions; with a home folder shared by
  several machines another one would fail on them.
  """
  text = platform.machine()
  cpuinfo = Path("/proc/cpuinfo")
  if cpuinfo.is_file():
    lines = cpuinfo.read_text().splitlines()
    kind = ("flags", "Features", "model name")
    text += "".join(sorted({x for x in lines if x.startswith(kind)}))
  return hashlib.sha256(text.encode()).hexdigest()[:12]


_COMMANDS = {
  "train": _train,
  "evaluate": _evaluate,
  "sample": _sample,
  "cache": _cache,
  "convert": _convert,
  "list": _list,
  "config": _config,
  "report": _report,
  "bench": _bench,
  "plan": _plan,
  "quickstart": _quickstart,
  "grid": _grid,
}
