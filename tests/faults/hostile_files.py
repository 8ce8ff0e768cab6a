"""Mutated checkpoints and caches of all formats, read by the real readers.

  python -m tests.faults.hostile_files --cases=1000 --seed=0 \
    --output=results/reliability/hostile_files.json

A case is a number: it draws a format, a file and what happens to it. Children
read the cases in their own process, which has to stay alive, to take less than
`MAX_BYTES` and `SECONDS`, to refuse in one line or to give the same values, and
to leave nothing half-written. Where a format has no checksum a change of its
numbers is no fault, for nothing can notice it; such cases are counted.
"""

import collections
from collections.abc import Sequence
import json
import os
from pathlib import Path
import resource
import shutil
import sys
import tempfile
from typing import Any

from tests.faults import hostile
from tests.faults import mutations
from tests.faults import sound_files

MAX_BYTES = 500 << 20  # above what the process had before
_NAME = "tests.faults.hostile_files"
# What the process may map: a fault ends it and not the machine.
_ADDRESS_SPACE = 8 << 30


def run(cases: Sequence[str], workers: int = 2) -> list[hostile.Record]:
  """Reads cases "seed:number" in child processes."""
  with tempfile.TemporaryDirectory() as folder:
    sound = Path(folder) / "sound"
    sound_files.make(sound)

    def describe(case: str) -> hostile.Record:
      kind, mutation = mutations.describe(case, sound)
      return {"format": kind, "mutation": mutation}

    half = ("-m", _NAME, "--child")
    return hostile.run(half, cases, folder, describe, workers)


def _answer(folder: str, *cases: str) -> None:
  """In a child: a line for each case; nothing else reaches that pipe."""
  answers = os.fdopen(os.dup(1), "w")
  sound, scratch = Path(folder) / "sound", Path(tempfile.mkdtemp(dir=folder))
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
  for case in cases:
    record = _try(case, sound, scratch, log, values)
    print(json.dumps(record), file=answers, flush=True)


def _try(case: str, sound: Path, scratch: Path, log, values) -> hostile.Record:
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
  return {
    "case": case,
    "format": kind,
    "mutation": mutation,
    "verdict": verdict,
    "said": said.replace(str(scratch), "…"),
    "fault": said if verdict == "fault" else "",
  }


def _values(kind: str, folder: Path, scratch: Path, log) -> tuple[str, str]:
  """("read", digest of the values), ("refused", why) or ("fault", what)."""
  shutil.rmtree(scratch, ignore_errors=True)
  scratch.mkdir(parents=True)
  log.truncate(0)
  log.seek(0)
  sys.stdout.flush()
  try:
    with hostile.limited():
      digest = sound_files.read(kind, folder, scratch)
    refusal = None
  except sound_files.Refused as error:
    digest, refusal = "", str(error)
  except BaseException as error:
    frame = error.__traceback__
    while frame.tb_next is not None:
      frame = frame.tb_next
    place = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
    place = place.removeprefix(f"{hostile.ROOT}/")
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


def _count(records: Sequence[hostile.Record]) -> hostile.Record:
  counts = collections.defaultdict(collections.Counter)
  for record in records:
    counts[record["format"]][record.get("verdict", "fault")] += 1
  return {
    "counts": {kind: dict(sorted(c.items())) for kind, c in counts.items()}
  }


if __name__ == "__main__":
  if sys.argv[1:2] == ["--child"]:
    _answer(*sys.argv[2:])
    sys.exit()
  sys.exit(hostile.main(_NAME, run, _count))
