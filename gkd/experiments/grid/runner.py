"""Runs the jobs of a grid that are not done, as processes of their own.

A job is done when its command ended with exit code 0; then its folder has a
`done.json` with its settings. Whatever stops the grid, it goes on from there.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
import os
from pathlib import Path
import re
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

log = logging.getLogger("gkd")

DONE_FILE = "done.json"
LOG_FILE = "log.txt"
# The kernel ends a job with SIGTERM, which saves, should this process die.
_LAUNCH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
  os.execv(sys.argv[2], sys.argv[2:])
"""
_POLL_SECONDS = 0.1
_PLAIN_SECONDS = 30.0  # between two lines where there is no terminal
_TAIL_BYTES = 4096
_TAIL_LINES = 8
_TYPES = {"seconds": (float, int), "settings": str}
_LEFT = re.compile(r"(?:(\d+):)?(\d+):(\d\d) left")  # of `gkd.progress`


@dataclasses.dataclass(frozen=True)
class _Process:
  """A job that is running."""

  job: Job
  popen: subprocess.Popen
  log: Path
  started: float

  @property
  def seconds(self) -> float:
    return time.monotonic() - self.started

  def tail(self) -> list[str]:
    """The last lines of its log."""
    with self.log.open("rb") as file:
      file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
      return file.read().decode(errors="replace").strip().splitlines()


def read_done(job: Job, folder: Path) -> dict | None:
  """Seconds and settings of a job in the folder of its grid; None if not done.

  Raises:
    UserError: the file is damaged.
  """
  file = folder / job.name / DONE_FILE
  if not file.exists():
    return None
  remedy = "delete it, and the job runs again"
  done = files.read_json(file, {}, remedy)
  files.check_types(file, done, _TYPES, remedy, required=True)
  return done


def run(
  jobs: Sequence[Job],
  settings: Mapping[str, str],
  folder: Path,
  *,
  program: Sequence[str] = (sys.executable, "-m", "gkd"),
  flags: Sequence[str] = (),
  environment: Mapping[str, str],
  workers: int = 1,
) -> None:
  """Runs what is not done, each job after those that it needs.

  Args:
    jobs: in the order in which they start.
    settings: {name of a job: its settings}, kept in its `done.json`.
    folder: of the grid.
    program: what takes a job's arguments.
    flags: further arguments of every job.
    environment: variables of the jobs beside those of this process.
    workers: jobs at once.

  Raises:
    UserError: jobs failed; those that do not depend on them are done.
    Interrupted: a signal came, which every running job got and has ended.
  """
  done = {j.name: d["seconds"] for j in jobs if (d := read_done(j, folder))}
  waiting = [job for job in jobs if job.name not in done]
  running: list[_Process] = []
  failed: list[str] = []
  display = _Display()
  with PreemptionHandler() as stop:
    is_told = False
    try:
      while True:
        ready = [j for j in waiting if done.keys() >= {*j.after}]
        for job in (
          ready[: workers - len(running)] if not stop.requested else ()
        ):
          command = [*program, *job.arguments, *flags]
          running.append(_start(job, folder, command, environment))
          waiting.remove(job)
          display.print(f"start   {job.name}")
        if not running:
          break
        if stop.requested and not is_told:
          is_told = True
          for process in running:
            process.popen.send_signal(stop.requested)
        time.sleep(_POLL_SECONDS)
        for process in [p for p in running if p.popen.poll() is not None]:
          running.remove(process)
          name, code = process.job.name, process.popen.returncode
          if code == 0:
            done[name] = process.seconds
            mark = {"seconds": done[name], "settings": settings[name]}
            files.write_json(folder / name / DONE_FILE, mark)
            seconds = progress.clock(process.seconds)
            display.print(f"done    {name} in {seconds}")
          elif not stop.requested:
            failed.append(name)
            display.print(f"FAILED  {name}, exit code {code}; {process.log}:")
            for line in process.tail()[-_TAIL_LINES:]:
              display.print(f"        {line}")
        display.show(_status(jobs, done, running, workers))
    finally:
      for process in running:
        process.popen.kill()
      display.clear()
  stop.check(f"with {len(done)} of {len(jobs)} jobs done")
  if failed:
    raise UserError(
      f"{len(failed)} of {len(jobs)} jobs failed, see above: {listed(failed)};"
      f" {len(waiting)} that need them were not started; mend the cause and"
      " give the same command again"
    )


def _start(
  job: Job,
  folder: Path,
  command: Sequence[str],
  environment: Mapping[str, str],
) -> _Process:
  log_file = folder / job.name / LOG_FILE
  log_file.parent.mkdir(parents=True, exist_ok=True)
  with log_file.open("ab") as output:
    output.write(f"$ {shlex.join(command)}\n".encode())
    output.flush()
    popen = subprocess.Popen(
      [sys.executable, "-c", _LAUNCH, str(os.getpid()), *command],
      env={**os.environ, **environment},
      stdin=subprocess.DEVNULL,
      stdout=output,
      stderr=subprocess.STDOUT,
      # Ctrl-C of the terminal is for this process, which passes it on once.
      start_new_session=True,
    )
  return _Process(job, popen, log_file, time.monotonic())


def _status(
  jobs: Sequence[Job],
  done: Mapping[str, float],
  running: Sequence[_Process],
  workers: int,
) -> str:
  """Jobs done, time left over all of them, and the last line of each log."""
  parts = [f"{len(done)}/{len(jobs)} jobs"]
  lines = {p.job.name: (p.tail() or [""])[-1] for p in running}
  left, is_whole = seconds_left(
    jobs, done, {p.job.name: (p.seconds, lines[p.job.name]) for p in running}
  )
  if left:
    least = "" if is_whole else "at least "
    parts.append(f"{least}{progress.clock(left / workers)} left")
  parts += [f"{name}: {line}" for name, line in lines.items()]
  return " · ".join(parts)


def seconds_left(
  jobs: Sequence[Job],
  done: Mapping[str, float],
  running: Mapping[str, tuple[float, str]],
) -> tuple[float, bool]:
  """Seconds of one worker that are left, by the times of the jobs alike.

  Args:
    jobs: all of them.
    done: {name: seconds}.
    running: {name: (seconds since its start, last line of its log)}.

  Returns:
    The seconds, and whether they are of all jobs: of a stage of which none has
    run nothing is known.
  """
  known: dict[str, list[float]] = {}
  for job in jobs:
    if job.name in done:
      known.setdefault(job.stage, []).append(done[job.name])
  for job in jobs:  # the first of its stage says itself what is left
    seconds, line = running.get(job.name, (0.0, ""))
    if job.stage not in known and (match := _LEFT.search(line)):
      hours, minutes, rest = (int(x or 0) for x in match.groups())
      known[job.stage] = [seconds + 3600 * hours + 60 * minutes + rest]
  left = [job for job in jobs if job.name not in done]
  seconds = [
    statistics.fmean(known[j.stage]) - running.get(j.name, (0.0,))[0]
    for j in left
    if j.stage in known
  ]
  return sum(max(0.0, x) for x in seconds), len(seconds) == len(left)


class _Display:
  """A line kept up to date: in place on a terminal, else every so often."""

  def __init__(self):
    self._is_terminal = sys.stderr.isatty()
    self._shown = time.monotonic()

  def show(self, line: str) -> None:
    if self._is_terminal:
      width = shutil.get_terminal_size().columns - 1
      self._write(f"\r{line[:width]:{width}}")
    elif time.monotonic() - self._shown >= _PLAIN_SECONDS:
      self._shown = time.monotonic()
      self._write(f"{line}\n")

  def print(self, line: str) -> None:
    self.clear()
    self._write(f"{line}\n")

  def clear(self) -> None:
    if self._is_terminal:
      self.show("")
      self._write("\r")

  def _write(self, text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
