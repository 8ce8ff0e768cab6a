"""What both halves of `make hostile` share: processes, time and the report.

A case is "seed:number". A half makes its files in a folder; as `--child FOLDER
CASE…` it prints "ready" and a line of JSON for each case, whose "fault" is
empty or says what is wrong. A process that hangs or dies is replaced.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import contextlib
import datetime
import itertools
import json
import os
from pathlib import Path
import platform
import select
import signal
import subprocess
import sys
import time
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[2]
SECONDS = 60
# Until a process is killed that no signal interrupts, or that does not start.
_PATIENCE = 5 * SECONDS

Record = dict[str, Any]


class Hung(BaseException):
  """The time is over."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
  """Raises `Hung` in the block after `SECONDS`."""
  signal.signal(signal.SIGALRM, mock.Mock(side_effect=Hung))
  signal.alarm(SECONDS)
  try:
    yield
  finally:
    signal.alarm(0)


def run(
  half: Sequence[str],
  cases: Sequence[str],
  folder: str,
  describe: Callable[[str], Record],
  workers: int,
) -> list[Record]:
  """Tries cases in child processes; a record for each.

  Args:
    half: arguments of Python that answer as the module says.
    cases: their names.
    folder: of the files.
    describe: what the record of a case has where its process hangs or dies.
    workers: processes at once.
  """

  def work(worker: int) -> list[Record]:
    records: list[Record] = []
    mine = cases[worker::workers]
    while len(records) < len(mine):
      records += _child([*half, folder], mine[len(records) :], describe)
    return records

  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    return [*itertools.chain(*pool.map(work, range(workers)))]


def _child(half, cases: Sequence[str], describe) -> list[Record]:
  """The records of one process, until it is done, hangs or dies."""
  records: list[Record] = []
  with subprocess.Popen(
    [sys.executable, *half, *cases],
    cwd=ROOT,
    env={
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "GKD_CACHE_DIR": f"{half[-1]}/caches",
    },
    stdout=subprocess.PIPE,
    bufsize=0,  # `select` does not see what is in a buffer
  ) as process:

    def answer() -> bytes | None:
      """The next line; None if none comes."""
      ready, _, _ = select.select([process.stdout], [], [], _PATIENCE)
      return process.stdout.readline() if ready else None

    try:
      if answer() != b"ready\n":
        raise RuntimeError(f"{half} does not start")
      for case in cases:
        line = answer()
        if not line:
          fault = "hung" if line is None else "the process died"
          return [*records, {"case": case, **describe(case), "fault": fault}]
        records.append(json.loads(line))
    finally:
      process.kill()
  return records


def main(
  half: str,
  try_cases: Callable[[Sequence[str]], list[Record]],
  count: Callable[[Sequence[Record]], Record],
) -> int:
  """The command of a half, which writes a report; 1 if it found a fault."""
  name = half.rpartition(".")[2]
  parser = argparse.ArgumentParser(prog=f"python -m {half}")
  parser.add_argument("--cases", type=int, default=1000)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--only", nargs="*", help="cases, as seed:number")
  parser.add_argument("--output", default=f"results/reliability/{name}.json")
  args = parser.parse_args()
  started = time.monotonic()
  cases = args.only or [f"{args.seed}:{n}" for n in range(args.cases)]
  records = try_cases(cases)
  faults = [record for record in records if record["fault"]]
  report = {
    "command": f"python -m {half} --cases={len(cases)} --seed={args.seed}",
    "date": datetime.date.today().isoformat(),
    "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores",
    "python": platform.python_version(),
    "minutes": round((time.monotonic() - started) / 60, 1),
    "cases": len(records),
    **count(records),
    "faults": faults,
  }
  for record in records if args.only else faults:
    print(json.dumps(record, ensure_ascii=False))
  if not args.only:
    Path(args.output).write_text(json.dumps(report, indent=2) + "\n")
  print(f"{len(faults)} faults in {len(records)} cases")
  return int(bool(faults))
