"""`gkd grid`: runs the missing jobs of a grid, all checked before the first."""

import argparse
from collections.abc import Mapping
import contextlib
import io
import logging
from pathlib import Path
import shlex
import sys

from gkd import files
from gkd import locks
from gkd.cli import cache_command
from gkd.cli import parser
from gkd.config import command_records as records
from gkd.config import configuration
from gkd.config.records import Folders
from gkd.config.records import check_range
from gkd.errors import UserError
from gkd.errors import is_text
from gkd.experiments.grid import grid_results
from gkd.experiments.grid import jobs
from gkd.experiments.grid import runner
from gkd.experiments.grid.jobs import Grid
from gkd.experiments.grid.jobs import Job

log = logging.getLogger("gkd")

_RECORDS = {
  "train": records.TrainConfig,
  "evaluate": records.EvaluateConfig,
  "sample": records.SampleConfig,
}
_ABOUT_FILE = "grid.json"
_MAX_DIFFERENCES = 3
_MOST_WORKERS = 1024


def grid(args: argparse.Namespace, folders: Folders) -> None:
  """Runs what of a grid is not done yet, and collects the table."""
  files.check_folder(args.output, "--output")
  check_range(1, _MOST_WORKERS, **{"--workers": args.workers})
  folder = files.local_path(args.output).absolute()
  file = files.local_path(args.file)
  shipped = configuration.config_folder() / args.file
  is_shipped = shipped.is_file() and not file.exists()
  described = jobs.read(shipped if is_shipped else file, folder, args.seeds)
  own = {
    "GKD_CACHE_DIR": folders.cache_dir,
    "GKD_DATA_DIR": folders.data_dir,
  }
  for name in own.keys() & described.environment:
    raise UserError(
      f"{file}: environment sets {name}, which `gkd grid` sets itself; give"
      f" --{name.removeprefix('GKD_').lower()}"
    )
  environment = {**described.environment, **own}
  settings = {
    job.name: _settings(job, folder, described) for job in described.jobs
  }
  _refuse_another(described, settings, folder)
  if args.dry_run:
    _print_jobs(described, folder, environment)
    return

  def resolve(job: Job) -> str:
    now = _settings(job, folder, described)
    if now != settings[job.name]:
      raise UserError(
        "gin files were edited since the grid was started:"
        f" {_difference(settings[job.name], now)}; put them back, or give"
        " another --output, and start it again"
      )
    return now

  what = f"--output {args.output}"
  with locks.hold(folder / ".lock", what, inherited=True):
    files.write_json(folder / _ABOUT_FILE, {"title": described.title})
    try:
      runner.run(
        described.jobs,
        resolve,
        folder,
        environment=environment,
        workers=args.workers,
      )
    finally:
      command = f"gkd {shlex.join(sys.argv[1:])}"
      grid_results.write(described, folder, command)
      log.info(
        "%s and %s hold what is done; see it with gkd report %s",
        folder / grid_results.CSV_FILE,
        grid_results.JSON_FILE,
        folder,
      )


def _settings(job: Job, folder: Path, described: Grid) -> str:
  """All that a job is configured by, wherever the grid's folder is.

  Raises:
    UserError: the command would refuse it.
  """
  texts = [*job.arguments, *described.environment.values()]
  if wrong := [text for text in texts if not is_text(text)]:
    raise UserError(
      f"job {job.name}: {wrong[0]!r} is not UTF-8; give another value"
    )
  own = [x for x in job.arguments if not x.startswith("--gin.")]
  said = io.StringIO()
  try:
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
      args = parser.build().parse_args(own)
  except SystemExit as end:
    reason = said.getvalue().partition("\n")[0]
    if not end.code:
      reason = "they print help and run nothing; take that flag out"
    raise UserError(f"job {job.name}: flags {[*job.flags]}: {reason}") from end
  bindings = [b.replace(str(folder), "OUTPUT") for b in job.bindings]
  try:
    if job.command == "cache make":
      configuration.load(["runs/data.gin", *job.gin_files], bindings)
      cache_command.configured_splits(args.split)
    else:
      configuration.load(job.gin_files, bindings)
      config = configuration.build(_RECORDS[job.command])
      seqio = {n: x for n, x in vars(args).items() if n == "through_seqio"}
      configuration.refuse_idle_flags(config.idle(**seqio))
  except UserError as error:
    raise UserError(f"job {job.name} (gkd {job.command}): {error}") from error
  rest = [*job.flags, *(f"{n}={v}" for n, v in described.environment.items())]
  return "\n".join([configuration.operative(), *rest])


def _refuse_another(
  described: Grid, settings: Mapping[str, str], folder: Path
) -> None:
  """Refuses a folder of another grid, or of one with other settings."""
  about = folder / _ABOUT_FILE
  proof = None if about.exists() else f"no grid ({_ABOUT_FILE}) made it"
  replaced = (grid_results.JSON_FILE, grid_results.CSV_FILE)
  files.check_replaced(folder, replaced, "--output", proof)
  if about.exists():
    title = files.read_json(about, {"title": str}, "delete it").get("title")
    if title != described.title:
      raise UserError(
        f"--output {folder} holds the grid {title!r}, not {described.title!r};"
        " give another --output, or the file with that title"
      )
  for job in described.jobs:
    done = runner.read_done(job, folder)
    now = settings[job.name]
    if done and done["settings"] != now:
      raise UserError(
        f"job {job.name} was done with other settings:"
        f" {_difference(done['settings'], now)}; give another --output, or"
        f" delete {folder / job.name} to run it again"
      )


def _difference(before: str, now: str) -> str:
  """The first lines that only one of two settings has."""
  old, new = before.splitlines(), now.splitlines()
  parts = [x for x in old if x not in new], [x for x in new if x not in old]
  lost, added = (", ".join(x[:_MAX_DIFFERENCES]) or "without" for x in parts)
  return f"{lost}; now {added}"


def _print_jobs(
  described: Grid, folder: Path, environment: Mapping[str, str]
) -> None:
  variables = [f"{name}={shlex.quote(v)}" for name, v in environment.items()]
  done = runner.done_jobs(described.jobs, folder)
  for job in described.jobs:
    print(f"{'done' if job.name in done else 'to do'}  {job.name}")
    print(f"  {' '.join(variables)} gkd {shlex.join(job.arguments)}")
  print(f"{len(done)} of {len(described.jobs)} jobs are done")
