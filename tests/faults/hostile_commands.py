"""Bad command lines end in one line: no traceback, no hang, none accepted.

  python -m tests.faults.hostile_commands --cases=1000 --seed=0 \
    --output=results/reliability/hostile_commands.json

A case is a number, see `hostile_lines`. Child processes run the command itself
up to the point where something would be computed or written.
"""

import argparse
import collections
from collections.abc import Callable
import concurrent.futures
import contextlib
import datetime
import importlib
import io
import itertools
import json
import os
from pathlib import Path
import platform
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any
from unittest import mock

from gkd.checkpoints import conversion
from gkd.cli import cache_command
from gkd.cli import evaluate_command
from gkd.cli import main as command
from gkd.cli import sample_command
from gkd.cli import train_command
from gkd.config import datasets
from gkd.experiments import step_timing
from gkd.experiments.quickstart import pipeline
from gkd.training import loop
from tests.faults import hostile_lines

ROOT = Path(__file__).parents[2]
_COMMAND = ("-m", "tests.faults.hostile_commands", "--child")
SECONDS = 60  # once TensorFlow is imported
# Where computing or writing begins.
_ENDS = (
  (train_command, "initial_params"),
  (loop, "train"),
  (evaluate_command, "evaluate_once"),
  (sample_command.write, "write_completions"),
  (step_timing, "measure"),
  (conversion, "write"),
  (datasets.build_cache, "find_or_build"),
  (cache_command, "train_sentencepiece"),
  (pipeline, "Stages"),
)


class Begun(BaseException):
  """The command would compute now."""


class Hung(BaseException):
  """The time is over."""


def attempt(seed: int, number: int, folder: Path) -> dict[str, Any]:
  """Runs one case here; what became of it, and what is wrong with that."""
  arguments, wrong = hostile_lines.draw(seed, number, folder)
  started = time.process_time()
  with contextlib.ExitStack() as stack:
    for owner, name in _ENDS:
      stack.enter_context(mock.patch.object(owner, name, side_effect=Begun))
    out, errors = io.StringIO(), io.StringIO()
    stack.enter_context(contextlib.redirect_stdout(out))
    stack.enter_context(contextlib.redirect_stderr(errors))
    result = _result(lambda: command.main(arguments))
  said = errors.getvalue().rstrip().rpartition("\n")[2]
  fault = ""
  if isinstance(result, str):
    fault = result
  elif result not in (0, 2) or "Traceback" in errors.getvalue():
    fault = f"exit code {result}"
  elif result == 2 and not said.startswith("gkd"):
    fault = "no line says why"
  elif result != 2 and wrong:
    fault = "accepted"
  return {
    "case": f"{seed}:{number}",
    "command": [ascii(text)[1:-1][:200] for text in arguments],
    "exit_code": result,
    "said": said[:300].replace(str(folder), "…"),
    "fault": fault,
    "seconds": round(time.process_time() - started, 3),
  }


def _result(call: Callable[[], int]) -> int | str:
  """The exit code, 0 where computing would begin; text of what went wrong."""
  signal.signal(signal.SIGALRM, mock.Mock(side_effect=Hung))
  signal.alarm(SECONDS)
  try:
    return call()
  except Begun:
    return 0
  except SystemExit as end:
    return end.code
  except BaseException as error:
    if isinstance(error, Hung):
      return "hung"
    return f"{type(error).__name__}: {str(error)[:200]}"
  finally:
    signal.alarm(0)


def run(cases: int, seed: int, workers: int = 2) -> list[dict[str, Any]]:
  """All cases, in a few child processes; one that hangs or dies is replaced."""
  with tempfile.TemporaryDirectory() as scratch:
    hostile_lines.make_files(Path(scratch))

    def work(worker: int) -> list[dict[str, Any]]:
      records: list[dict[str, Any]] = []
      numbers = range(worker, cases, workers)
      while len(records) < len(numbers):
        rest = numbers[len(records) :]
        records += _child(scratch, seed, rest)
      return records

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
      return [*itertools.chain(*pool.map(work, range(workers)))]


def _child(folder: str, seed: int, numbers: range) -> list[dict[str, Any]]:
  """The records of one process, until it is done, hangs or dies."""
  records = []
  with subprocess.Popen(
    [sys.executable, *_COMMAND, folder, str(seed), *map(str, numbers)],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu", "GKD_CACHE_DIR": f"{folder}/c"},
    stdout=subprocess.PIPE,
  ) as process:
    for number in numbers:
      ready, _, _ = select.select([process.stdout], [], [], 5 * SECONDS)
      line = process.stdout.readline() if ready else b""
      if not line:
        process.kill()
        arguments, _ = hostile_lines.draw(seed, number, Path(folder))
        case = {
          "case": f"{seed}:{number}",
          "command": list(map(ascii, arguments)),
        }
        what = "the process died" if ready else "hung"
        return [*records, {**case, "exit_code": None, "fault": what}]
      records.append(json.loads(line))
  return records


def _message(record: dict[str, Any]) -> str:
  """What was said without names and numbers."""
  return re.sub(r"'.*?'|\S*[\W\d_]\S*", "…", record.get("said", ""))[:60]


def _answer(folder: str, seed: str, *numbers: str) -> None:
  """In a child: a line for each case; nothing else reaches that pipe."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  importlib.import_module("gkd.tasks.mixtures")  # TensorFlow, before the clock
  os.chdir(folder)
  for number in map(int, numbers):
    record = attempt(int(seed), number, Path(folder))
    print(json.dumps(record), file=answers, flush=True)


def main() -> int:
  if sys.argv[1:2] == ["--child"]:
    _answer(*sys.argv[2:])
    return 0
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--cases", type=int, default=1000)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument(
    "--output", default="results/reliability/hostile_commands.json"
  )
  args = parser.parse_args()
  started = time.monotonic()
  records = run(args.cases, args.seed)
  faults = [record for record in records if record["fault"]]
  codes = collections.Counter(record["exit_code"] for record in records)
  report = {
    "command": "python -m tests.faults.hostile_commands"
    f" --cases={args.cases} --seed={args.seed}",
    "date": datetime.date.today().isoformat(),
    "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores",
    "python": platform.python_version(),
    "minutes": round((time.monotonic() - started) / 60, 1),
    "cases": len(records),
    "refused": codes[2],
    "would_compute": codes[0],
    "different_messages": len({_message(record) for record in records}),
    "faults": faults,
  }
  Path(args.output).write_text(json.dumps(report, indent=2) + "\n")
  for fault in faults:
    print(f"{fault['case']} {fault['fault']}: gkd {' '.join(fault['command'])}")
  print(f"{len(faults)} faults in {len(records)} command lines")
  return int(bool(faults))


if __name__ == "__main__":
  sys.exit(main())
