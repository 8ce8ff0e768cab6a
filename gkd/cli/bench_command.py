"""`gkd bench`: what the steps of a run cost, beside an earlier result."""

import argparse
from collections.abc import Mapping
import dataclasses
import json
import tempfile
from typing import Any

from gkd import files
from gkd.cli import train_command
from gkd.cli.starts import starts
from gkd.config import configuration
from gkd.config.command_records import TrainConfig
from gkd.config.records import Folders
from gkd.experiments.bench import bench_table
from gkd.experiments.bench import step_timing
from gkd.experiments.bench.random_run import RandomRun
from gkd.training.run import Run
from gkd.types import UserError

MARK = b'"work"'  # at the beginning of the JSON


def check_flags(args: argparse.Namespace) -> None:
  """Refuses flags that have no effect beside others."""
  is_sized = args.size is not None
  if is_sized and (args.gin_file or args.bindings):
    given = "gin_file" if args.gin_file else f"gin.{args.bindings[0]}"
    raise UserError(
      f"--size and --{given} are both given; leave one of the two out"
    )
  if not is_sized and (given := _sizes(args)):
    raise UserError(
      f"--{min(given)} has no effect without --size; leave it out, or set the"
      " value by --gin.NAME=VALUE"
    )


def bench(args: argparse.Namespace, folders: Folders | None) -> None:
  """Measures, prints and writes.

  Args:
    args: the flags.
    folders: where a configuration is loaded; None for a run of --size.

  Raises:
    UserError: a flag is wrong, or the earlier result is one of other work.
  """
  files.check_file(args.output, "--output", MARK)
  if args.profile:
    files.check_folder(args.profile, "--profile")
  earlier = None
  if args.compare:
    remedy = "give a result of gkd bench"
    earlier = files.read_json(files.local_path(args.compare), {}, remedy)
    files.check_types(
      args.compare, earlier, bench_table.TYPES, remedy, required=True
    )
  with tempfile.TemporaryDirectory() as scratch:
    run, built = step_timing.timed(lambda: _build(args, folders, scratch))
    if earlier is not None:
      work = step_timing.work_of(run)
      bench_table.check_same_work(work, earlier, args.compare)
    result = step_timing.measure(
      run,
      args.rounds,
      args.phases,
      built=built,
      profile=str(files.local_path(args.profile)) if args.profile else "",
    )
  print(bench_table.describe(result))
  if earlier is not None:
    print(f"\n{bench_table.compare(result, earlier)}")
  text = json.dumps(result | {"starts": starts()}, indent=2) + "\n"
  files.write_text(files.local_path(args.output), text)
  print(f"written to {args.output}")


def _sizes(args: argparse.Namespace) -> Mapping[str, Any]:
  """The flags that a `RandomRun` is made of, where they are given."""
  names = [field.name for field in dataclasses.fields(RandomRun)]
  return {n: x for n in names if (x := getattr(args, n)) is not None}


def _build(
  args: argparse.Namespace, folders: Folders | None, scratch: str
) -> Run:
  if folders is None:
    return RandomRun(**_sizes(args)).build(scratch)
  run = train_command.prepare(configuration.build(TrainConfig), folders)
  return dataclasses.replace(run, model_dir=f"{scratch}/run")
