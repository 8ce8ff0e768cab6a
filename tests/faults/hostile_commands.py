"""Bad command lines end in one line: no traceback, no hang, none accepted.

  python -m tests.faults.hostile_commands --cases=1000 --seed=0 \
    --output=results/reliability/hostile_commands.json

A case is a number, see `hostile_lines`. Child processes run the command itself
up to the point where something would be computed or written.
"""

import collections
from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import importlib
import io
import json
import os
from pathlib import Path
import re
import sys
import tempfile
import time
from typing import Any
from unittest import mock

from gkd import locks
from gkd.checkpoints import conversion
from gkd.cli import cache_command
from gkd.cli import evaluate_command
from gkd.cli import grid_command
from gkd.cli import main as command
from gkd.cli import sample_command
from gkd.cli import train_command
from gkd.config import datasets
from gkd.experiments.bench import step_timing
from gkd.experiments.quickstart import pipeline
from gkd.training import loop
from tests.faults import hostile
from tests.faults import hostile_lines

_NAME = "tests.faults.hostile_commands"
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
  (grid_command.runner, "run"),
)


class Begun(BaseException):
  """The command would compute now."""


def attempt(case: str, folder: Path) -> hostile.Record:
  """Runs one case here; what became of it, and what is wrong with that."""
  arguments, wrong = hostile_lines.draw(case, folder)
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
    "case": case,
    "command": [ascii(text)[1:-1][:200] for text in arguments],
    "exit_code": result,
    "said": said[:300].replace(str(folder), "…"),
    "fault": fault,
    "seconds": round(time.process_time() - started, 3),
  }


def _result(call: Callable[[], int]) -> int | str:
  """The exit code, 0 where computing would begin; text of what went wrong."""
  try:
    with hostile.limited():
      return call()
  except Begun:
    return 0
  except SystemExit as end:
    return end.code
  except hostile.Hung:
    return "hung"
  except BaseException as error:
    return f"{type(error).__name__}: {str(error)[:200]}"


def run(cases: Sequence[str], workers: int = 2) -> list[hostile.Record]:
  """Runs cases "seed:number" in child processes."""
  with tempfile.TemporaryDirectory() as folder:
    hostile_lines.make_files(Path(folder))

    def describe(case: str) -> hostile.Record:
      arguments, _ = hostile_lines.draw(case, Path(folder))
      return {"command": list(map(ascii, arguments)), "exit_code": None}

    half = ("-m", _NAME, "--child")
    with locks.hold(Path(folder) / "held" / ".lock", "it"):
      return hostile.run(half, cases, folder, describe, workers)


def _message(record: dict[str, Any]) -> str:
  """What was said without names and numbers."""
  return re.sub(r"'.*?'|\S*[\W\d_]\S*", "…", record.get("said", ""))[:60]


def _count(records: Sequence[hostile.Record]) -> hostile.Record:
  codes = collections.Counter(record["exit_code"] for record in records)
  return {
    "refused": codes[2],
    "would_compute": codes[0],
    "different_messages": len({_message(record) for record in records}),
  }


def _answer(folder: str, *cases: str) -> None:
  """In a child: a line for each case; nothing else reaches that pipe."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  importlib.import_module("gkd.tasks.mixtures")  # TensorFlow, before the clock
  os.chdir(folder)
  print("ready", file=answers, flush=True)
  for case in cases:
    print(json.dumps(attempt(case, Path(folder))), file=answers, flush=True)


if __name__ == "__main__":
  if sys.argv[1:2] == ["--child"]:
    _answer(*sys.argv[2:])
    sys.exit()
  sys.exit(hostile.main(_NAME, run, _count))
