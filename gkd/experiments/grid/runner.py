"""Runs the jobs of a grid that are not done, as processes of their own.

A job is done when its command ended with exit code 0; then its folder has a
`done.json` with its settings, and its seconds over all its starts. Whatever
stops the grid, it goes on from there.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import itertools
import os
from pathlib import Path
import shlex
import shutil
import statistics
import subprocess
import sys
import time

from gkd import files
from gkd import progress
from gkd.errors import UserError
from gkd.errors import listed
from gkd.experiments.grid.jobs import Job
from gkd.training.preemption import PreemptionHandler

PROGRAM = (sys.executable, "-m", "gkd")
DONE_FILE = "done.json"
LOG_FILE = "log.txt"
SECONDS_FILE = "seconds.json"  # of a job so far
# The kernel ends a job with SIGTERM, which saves, should this process die.
_LAUNCH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
  os.execv(sys.argv[2], sys.argv[2:])
"""
_POLL_SECONDS = 0.1
_POLLS = 100  # between two notes of the seconds of what is running
_PLAIN_SECONDS = 30.0  # between two lines where there is no terminal
_TAIL_BYTES = 4096
_TAIL_LINES = 8
_SECONDS: files.Types = {"seconds": (float, int)}
_DONE: files.Types = {**_SECONDS, "settings": str}


@dataclasses.dataclass(frozen=True)
class _Process:
  """A job that is running."""

  job: Job
  settings: str
  popen: subprocess.Popen
  log: Path
  earlier: float  # seconds of the starts before
  started: float

  @property
  def seconds(self) -> float:
    return self.earlier + time.monotonic() - self.started

  def tail(self) -> list[str]:
    """The last lines of its log."""
    with self.log.open("rb") as file:
      file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
      return file.read().decode(errors="replace").strip().splitlines()

  def write(self, file: str, **more: str) -> None:
    """Keeps its seconds, and more."""
    content = {"seconds": self.seconds, **more}
    files.write_json(self.log.with_name(file), content)

  def finish(self, resolve: Callable[[Job], str]) -> str:
    """Writes its `done.json`; returns why not where it is not done."""
    if self.popen.returncode:
      text = f"FAILED  {self.job.name}, exit code {self.popen.returncode};"
      return "\n        ".join(
        [f"{text} {self.log}:", *self.tail()[-_TAIL_LINES:]]
      )
    try:
      resolve(self.job)  # it read its files some time after the first check
    except UserError as error:
      return f"FAILED  {self.job.name}: {error}"
    self.write(DONE_FILE, settings=self.settings)
    return ""


def read_done(job: Job, folder: Path) -> dict | None:
  """Seconds and settings of a job in the folder of its grid; None if not done.

  Raises:
    UserError: the file is damaged.
  """
  return _read(folder / job.name / DONE_FILE, _DONE, "the job runs again")


def _read(file: Path, types: files.Types, then: str) -> dict | None:
  if not file.exists():
    return None
  remedy = f"delete it, and {then}"
  content = files.read_json(file, {}, remedy)
  files.check_types(file, content, types, remedy, required=True)
  return content


def run(
  jobs: Sequence[Job],
  resolve: Callable[[Job], str],
  folder: Path,
  *,
  environment: Mapping[str, str],
  workers: int = 1,
) -> None:
  """Runs what is not done, each job after those that it needs.

  Args:
    jobs: in their order.
    resolve: a job's settings, asked before and after it; a UserError fails it.
    folder: of the grid.
    environment: of the jobs, beside that of this process.
    workers: jobs at once.

  Raises:
    UserError: jobs failed; those that do not depend on them are done.
    Interrupted: a signal came, which every running job got and has ended.
  """
  done = done_jobs(jobs, folder)
  waiting = [job for job in jobs if job.name not in done]
  for job in waiting:  # what it needs is made anew
    (folder / job.name / DONE_FILE).unlink(missing_ok=True)
  running, failed, told = list[_Process](), list[str](), None
  display = _Display()
  with PreemptionHandler() as stop, contextlib.ExitStack() as stack:
    stack.callback(lambda: [process.popen.kill() for process in running])
    for poll in itertools.count(1):
      before, told = told, stop.requested
      for process in running if told != before else ():
        process.popen.send_signal(told)
      ready = [j for j in waiting if not told and done.keys() >= {*j.after}]
      while ready and len(running) < workers:
        waiting.remove(job := ready.pop(0))
        try:
          running.append(_start(job, resolve(job), folder, environment))
          display.print(f"start   {job.name}")
        except (UserError, OSError) as error:
          failed.append(job.name)
          display.print(f"FAILED  {job.name}: {error}")
      if not running:
        break
      display.show(_status(jobs, done, running, workers))
      time.sleep(_POLL_SECONDS)
      for process in _ended(running, note=poll % _POLLS == 0):
        name, failure = process.job.name, process.finish(resolve)
        if not failure:
          done[name] = process.seconds
          display.print(f"done    {name} in {progress.clock(done[name])}")
        elif not stop.requested:
          failed.append(name)
          display.print(failure)
  stop.check(f"with {len(done)} of {len(jobs)} jobs done")
  if failed:
    raise UserError(
      f"{len(failed)} of {len(jobs)} jobs failed, see above: {listed(failed)};"
      f" {len(waiting)} that need them were not started; mend that, run again"
    )


def done_jobs(jobs: Sequence[Job], folder: Path) -> dict[str, float]:
  """{name: seconds} of the jobs that are done, as all that they need are."""
  done: dict[str, float] = {}
  for job in jobs:  # after those that it needs
    if done.keys() >= {*job.after} and (mark := read_done(job, folder)):
      done[job.name] = mark["seconds"]
  return done


def _start(
  job: Job, settings: str, folder: Path, environment: Mapping[str, str]
) -> _Process:
  command = [*PROGRAM, *job.arguments]
  log = folder / job.name / LOG_FILE
  log.parent.mkdir(parents=True, exist_ok=True)
  before = _read(
    log.with_name(SECONDS_FILE), _SECONDS, "its seconds begin at 0"
  )
  with log.open("ab") as output:
    output.write(f"$ {shlex.join(command)}\n".encode())
    output.flush()
    popen = subprocess.Popen(
      [sys.executable, "-c", _LAUNCH, str(os.getpid()), *command],
      env={**os.environ, **environment},
      stdin=subprocess.DEVNULL,
      stdout=output,
      stderr=subprocess.STDOUT,
      close_fds=False,  # the lock of the grid, see `locks.hold`
      # Ctrl-C of the terminal is for this process, which passes it on once.
      start_new_session=True,
    )
  earlier = before["seconds"] if before else 0.0
  return _Process(job, settings, popen, log, earlier, time.monotonic())


def _ended(running: list[_Process], *, note: bool) -> list[_Process]:
  """Takes out those that have ended; writes what they, or all, have taken."""
  ended = [p for p in running if p.popen.poll() is not None]
  for process in running if note else ended:
    process.write(SECONDS_FILE)
  for process in ended:
    running.remove(process)
  return ended


def _status(
  jobs: Sequence[Job],
  done: Mapping[str, float],
  running: Sequence[_Process],
  workers: int,
) -> str:
  """Jobs done, time left over all of them, and the last line of each log."""
  seconds = {process.job.name: process.seconds for process in running}
  left, is_whole = seconds_left(jobs, done, seconds)
  parts = [f"{len(done)}/{len(jobs)} jobs"]
  if left:
    least = "" if is_whole else "at least "
    parts.append(f"{least}{progress.clock(left / workers)} left")
  for process in running:
    name, line = process.job.name, (process.tail() or [""])[-1]
    if line.startswith("$ "):
      line = "starts"
    own = f"{Path(name).name}: "  # as the progress line of training has it
    parts.append(f"{name}: {line.removeprefix(own)}")
  return " · ".join(parts)


def seconds_left(
  jobs: Sequence[Job], done: Mapping[str, float], running: Mapping[str, float]
) -> tuple[float, bool]:
  """Seconds that one worker needs, by those of the jobs alike, {name: seconds}.

  And whether that is all: of a stage of which no job is done nothing is known.
  """
  known: dict[str, list[float]] = {}
  for job in jobs:
    if job.name in done:
      known.setdefault(job.stage, []).append(done[job.name])
  left = [job for job in jobs if job.name not in done]
  seconds = [
    max(0.0, statistics.fmean(known[job.stage]) - running.get(job.name, 0.0))
    for job in left
    if job.stage in known
  ]
  return sum(seconds), len(seconds) == len(left)


class _Display:
  """A line kept up to date: in place on a terminal, else every so often."""

  def __init__(self):
    self._is_terminal = sys.stderr.isatty()
    self._shown = time.monotonic()

  def show(self, line: str) -> None:
    if self._is_terminal:
      width = shutil.get_terminal_size().columns - 1
      print(f"\r{line[:width]:{width}}", end="", file=sys.stderr, flush=True)
    elif time.monotonic() - self._shown >= _PLAIN_SECONDS:
      self._shown = time.monotonic()
      print(line, file=sys.stderr, flush=True)

  def print(self, line: str) -> None:
    """A line of its own, which stays."""
    if self._is_terminal:
      self.show("")
      print(end="\r", file=sys.stderr)
    print(line, file=sys.stderr, flush=True)
