"""Mutated checkpoints and caches of all formats, read by the real readers.

  python -m tests.faults.hostile_files --cases=1000 --seed=0 \
    --output=results/reliability/hostile_files.json

A case is a number: it draws a format, a file and what happens to it. Children
read the cases in their own process, which has to stay alive, to take less than
`MAX_BYTES` and `SECONDS`, to refuse in one line or to give the same values, and
to leave nothing half-written. Where a format has no checksum a change of its
numbers is no fault, for nothing can notice it; such cases are counted.
"""

import argparse
import collections
from collections.abc import Iterable
import concurrent.futures
import datetime
import itertools
import json
import os
from pathlib import Path
import platform
import queue
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from tests.faults import mutations
from tests.faults import sound_files

ROOT = Path(__file__).parents[2]
MAX_BYTES = 500 << 20  # above what the process had before
SECONDS = 60
_MODULE = "tests.faults.hostile_files"
# What the process may map: a fault ends it and not the machine.
_ADDRESS_SPACE = 8 << 30


def run(cases: Iterable[str], workers: int = 2) -> list[dict[str, Any]]:
  """Reads cases "seed:number" in child processes; a record for each."""
  waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
  for case in cases:
    waiting.put(case)
  with tempfile.TemporaryDirectory() as scratch:
    sound = Path(scratch) / "sound"
    sound_files.make(sound)

    def work(number: int) -> list[dict[str, Any]]:
      records, child = [], None
      while not waiting.empty():
        case = waiting.get()
        if child is None:
          child = _start(sound, Path(scratch) / f"child{number}")
          assert child.stdout.readline() == b"ready\n", "sound files fail"
        child.stdin.write(f"{case}\n".encode())
        child.stdin.flush()
        answers, _, _ = select.select([child.stdout], [], [], SECONDS)
        line = child.stdout.readline() if answers else b""
        if line.startswith(b"{"):
          records.append(json.loads(line))
          continue
        child.kill()
        what = f"the process ended {line}" if answers else "it hung"
        kind, mutation = mutations.describe(case, sound)
        about = {"case": case, "format": kind, "mutation": mutation}
        records.append({**about, "verdict": "fault", "said": what})
        child = None
      if child is not None:
        child.stdin.close()
        child.wait()
      return records

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
      records = pool.map(work, range(workers))
      return list(itertools.chain.from_iterable(records))


def _start(sound: Path, scratch: Path) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "-m", _MODULE, "--child", str(sound), str(scratch)],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )


def _child(sound: Path, scratch: Path) -> None:
  """Answers each case that is a line on the input with a line."""
  answers = os.fdopen(os.dup(1), "w")
  scratch.mkdir(exist_ok=True)
  log = (scratch / "log").open("w+b")
  os.dup2(log.fileno(), 1)
  os.dup2(log.fileno(), 2)
  values: dict[str, Any] = {}
  for kind in sound_files.KINDS:
    verdict, values[kind] = _values(kind, sound / kind, scratch / "sound", log)
    assert (verdict == "read") == (kind != "bin"), values[kind]
  values["memory"] = _memory("VmHWM")
  print("ready", file=answers, flush=True)
  resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE,) * 2)
  for line in sys.stdin:
    answers.write(json.dumps(_try(line.strip(), sound, scratch, log, values)))
    answers.write("\n")
    answers.flush()


def _try(case: str, sound: Path, scratch: Path, log, values) -> dict[str, Any]:
  kind, mutation = mutations.describe(case, sound)
  folder = scratch / kind
  shutil.rmtree(folder, ignore_errors=True)
  shutil.copytree(sound / kind, folder, symlinks=True)
  is_signed = mutations.mutate(case, folder)
  Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
  # Not less than for sound files: the system takes pages of libraries away.
  before = max(_memory("VmHWM"), values["memory"])
  state = mutations.state(folder)
  verdict, said = _values(kind, folder, scratch / "out", log)
  if verdict == "read":
    verdict = "same" if said in sound_files.expected(kind, values) else "other"
    said = ""
    is_checked = kind in sound_files.CHECKED and not is_signed
    is_checked |= not mutations.may_change(kind, mutation)
    if verdict == "other" and is_checked:
      verdict, said = "fault", "wrong values were accepted"
  more = _memory("VmHWM") - before
  if more > MAX_BYTES:
    verdict, said = "fault", f"{more >> 20} MiB"
  if mutations.state(folder) != state:
    verdict, said = "fault", "the source was written to"
  about = {"case": case, "format": kind, "mutation": mutation}
  return {**about, "verdict": verdict, "said": said.replace(str(scratch), "…")}


def _values(kind: str, folder: Path, scratch: Path, log) -> tuple[str, str]:
  """("read", digest of the values), ("refused", why) or ("fault", what)."""
  shutil.rmtree(scratch, ignore_errors=True)
  scratch.mkdir(parents=True)
  log.truncate(0)
  log.seek(0)
  sys.stdout.flush()
  try:
    digest = sound_files.read(kind, folder, scratch)
    refusal = None
  except sound_files.Refused as error:
    digest, refusal = "", str(error)
  except BaseException as error:
    frame = error.__traceback__
    while frame.tb_next is not None:
      frame = frame.tb_next
    place = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
    place = place.removeprefix(f"{ROOT}/")
    return "fault", f"{type(error).__name__}: {str(error)[:200]} at {place}"
  sys.stdout.flush()
  sys.stderr.flush()
  log.seek(0)
  written = log.read().decode("utf-8", "replace")
  if "Traceback" in written:
    return "fault", f"a traceback was printed: {written[-300:]}"
  if refusal is None:
    return "read", digest
  if left := sorted(entry.name for entry in scratch.iterdir()):
    return "fault", f"{left} were left behind a refusal"
  if not refusal or "\n" in refusal:
    return "fault", f"not refused in one line: {refusal}"
  return "refused", refusal[:300]


def _memory(name: str) -> int:
  lines = Path("/proc/self/status").read_text().splitlines()
  line = next(line for line in lines if line.startswith(name))
  return int(line.split()[1]) << 10


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--cases", type=int, default=1000)
  parser.add_argument("--seed", type=int, default=random.randrange(10**6))
  parser.add_argument(
    "--output", default="results/reliability/hostile_files.json"
  )
  parser.add_argument("--only", nargs="*", help="cases, as seed:number")
  parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    _child(*map(Path, args.child))
    return 0
  cases = args.only or [f"{args.seed}:{n}" for n in range(args.cases)]
  records = run(cases)
  faults = [r for r in records if r["verdict"] == "fault"]
  counts = collections.defaultdict(collections.Counter)
  for record in records:
    counts[record["format"]][record["verdict"]] += 1
  report = {
    "command": f"python -m tests.faults.hostile_files --cases={len(cases)}"
    f" --seed={args.seed}",
    "date": datetime.date.today().isoformat(),
    "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores",
    "python": platform.python_version(),
    "cases": len(records),
    "faults": faults,
    "counts": {kind: dict(sorted(c.items())) for kind, c in counts.items()},
  }
  for record in records if args.only else faults:
    print(json.dumps(record, ensure_ascii=False))
  output = Path(args.output)
  output.parent.mkdir(parents=True, exist_ok=True)
  output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
  print(f"{len(faults)} faults in {len(records)} cases: {args.output}")
  return int(bool(faults))


if __name__ == "__main__":
  sys.exit(main())
