"""Writes the shards of a cache with several processes.

Each worker holds at most one job and the caller one more, so memory does not
grow with the data. Workers are new interpreters, not forks: a fork would carry
TensorFlow and its threads along. They end with the process that started them,
however it dies, which those of `concurrent.futures` do not.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import ctypes
import itertools
import multiprocessing
from multiprocessing import connection
import os
import signal

from gkd.data.builder import tokenise
from gkd.data.builder.tokenise import Job
from gkd.data.builder.tokenise import Recipe
from gkd.errors import UserError

_MOST = 16  # more only wait for the process that reads the source
_SECONDS_TO_END = 5
_PR_SET_PDEATHSIG = 1


def run(
  jobs: Iterable[Job], recipe: Recipe, count: int | None = None
) -> Iterator[int]:
  """Writes shards in any order; yields the rows of each when it is done.

  A single job is done in this process: starting another takes longer.

  Args:
    jobs: read one ahead.
    recipe: for all of them.
    count: of workers; one for each core that this process may use, at least
      two, by default.

  Raises:
    UserError: a job failed, or a worker died. Finished shards stay.
  """
  jobs = iter(jobs)
  first = list(itertools.islice(jobs, 2))
  if len(first) < 2:
    for job in first:
      yield tokenise.write(recipe, job)
    return
  count = count or max(2, min(len(os.sched_getaffinity(0)), _MOST))
  with _started(recipe, count) as workers:
    idle, busy = list(workers), {}
    for job in itertools.chain(first, jobs):
      if not idle:
        yield from _collect(workers, busy, idle)
      worker = idle.pop()
      busy[worker] = job.index
      with _death_reported(workers[worker], job.index):
        worker.send(job)
    while busy:
      yield from _collect(workers, busy, idle)


@contextlib.contextmanager
def _started(recipe: Recipe, count: int) -> Iterator[dict]:
  """{connection: process} of the workers, which are gone afterwards."""
  context = multiprocessing.get_context("spawn")
  workers = {}
  try:
    for _ in range(count):
      near, far = context.Pipe()
      process = context.Process(target=_serve, args=(far, recipe), daemon=True)
      process.start()
      far.close()
      workers[near] = process
    yield workers
  except BaseException:
    for process in workers.values():
      process.terminate()  # what it is writing would be thrown away anyhow
    raise
  finally:
    for near, process in workers.items():
      near.close()
      process.join(_SECONDS_TO_END)


def _collect(workers: dict, busy: dict, idle: list) -> Iterator[int]:
  """Waits for one worker or more."""
  for worker in connection.wait(busy):
    with _death_reported(workers[worker], busy.pop(worker)):
      result = worker.recv()
    if isinstance(result, UserError):
      raise result
    idle.append(worker)
    yield result


@contextlib.contextmanager
def _death_reported(process, index: int) -> Iterator[None]:
  try:
    yield
  except (EOFError, OSError) as error:
    process.join(_SECONDS_TO_END)
    raise UserError(
      f"a worker process died (exit code {process.exitcode}) with shard"
      f" {index}; finished shards stay: run the same command again, with fewer"
      " --workers if memory is short"
    ) from error


def _serve(far, recipe: Recipe) -> None:
  """Does jobs until the other side is gone."""
  # Ctrl-C reaches the whole group; the parent decides what it means.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # Whoever goes on with the cache must not meet one that still writes. Only
  # Linux can: elsewhere it ends after its shard.
  with contextlib.suppress(AttributeError):
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  if os.getppid() != multiprocessing.parent_process().pid:
    return  # it has died already
  with contextlib.suppress(EOFError, OSError):
    while True:
      job = far.recv()
      try:
        result = tokenise.write(recipe, job)
      except UserError as error:
        result = error
      far.send(result)
