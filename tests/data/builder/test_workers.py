"""Several processes write what one would, and a failure is one clear line."""

import pathlib
import signal
import time

import pytest

from gkd.data import shards
from gkd.data.builder import workers
from gkd.data.builder.tokenise import Job
from gkd.data.builder.tokenise import Recipe
from gkd.data.cache import TokenCache
from gkd.data.writer import CacheWriter
from gkd.errors import UserError
from gkd.text.vocabulary import ByteVocabulary
from tests import child

POSTPROCESS = """
import os
import signal


def plain(text, example=None, is_target=False):
  return text


def fails(text, example=None, is_target=False):
  if text == "t 7":
    raise KeyError("no such field")
  return text


def dies(text, example=None, is_target=False):
  if text == "t 7":
    os.kill(os.getpid(), signal.SIGKILL)
  return text


def waits(text, example=None, is_target=False):
  print(os.getpid(), flush=True)
  signal.pause()
"""
LENGTHS = {"inputs": 16, "targets": 16}


@pytest.fixture
def functions(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(tmp_path))
  (tmp_path / "worker_functions.py").write_text(POSTPROCESS)


def jobs(sizes):
  first = 0
  for index, size in enumerate(sizes):
    numbers = range(first, first + size)
    yield Job(
      index, first, [{"inputs": f"i {n}", "targets": f"t {n}"} for n in numbers]
    )
    first += size


def make(path, sizes, count, function="plain"):
  info = {"lengths": LENGTHS, "vocabulary": ByteVocabulary()}
  with CacheWriter(path, key=function) as writer:
    recipe = Recipe(
      folder=str(writer.folder),
      postprocess=f"worker_functions:{function}",
      add_eos={"inputs": True, "targets": True},
      **info,
    )
    done = sorted(workers.run(jobs(sizes), recipe, count))
    writer.finish({"task": "toy", "split": "train", **info})
  return done


def test_the_number_of_workers_changes_no_byte(
  tmp_path, functions, monkeypatch
):
  sizes = [4, 4, 4, 4, 1]
  caches = []
  for count in (1, 3):
    assert make(tmp_path / str(count), sizes, count) == sorted(sizes)
    caches.append(TokenCache(tmp_path / str(count)))
  assert caches[0].info == caches[1].info  # with the sha256 of every file
  # In one process: a single shard does not wait for another to start.
  monkeypatch.setattr(
    workers.multiprocessing, "get_context", lambda kind: pytest.fail("starts")
  )
  assert make(tmp_path / "one", [17], 2) == [17]
  assert make(tmp_path / "none", [], 2) == []
  for cache in (caches[1], TokenCache(tmp_path / "one")):
    texts = [row.prompt for row in cache.read(range(17))]
    assert texts == [f"i {n}" for n in range(17)]


@pytest.mark.parametrize("sizes", [[12], [4, 4, 4]])
def test_a_failing_function_is_one_line_with_its_place(
  tmp_path, functions, sizes
):
  message = (
    r"row 7 .* cannot be converted \(KeyError: 'no such field', in fails at"
    r" .*worker_functions.py:12\).*finished shards stay"
  )
  with pytest.raises(UserError, match=message) as caught:
    make(tmp_path / "c", sizes, 2, "fails")
  assert "\n" not in str(caught.value)


def test_a_worker_that_dies_leaves_finished_shards(tmp_path, functions):
  message = (
    r"a worker process died \(exit code -9\) with shard 1; finished shards stay"
  )
  with pytest.raises(UserError, match=message):
    make(tmp_path / "c", [4, 4, 4, 4, 4], 1, "dies")
  with CacheWriter(tmp_path / "c", "dies") as writer:
    assert writer.finished == {0: 4}


def test_workers_end_with_the_process_that_started_them(tmp_path, functions):
  """Also where it is killed, and in the middle of a shard."""
  code = """
    import sys
    from tests.data.builder import test_workers as this

    this.make(sys.argv[1] + "/c", [4, 4], 1, "waits")
  """
  parent = child.start(code, tmp_path)
  worker = int(parent.stdout.readline())
  assert not _is_gone(worker)
  parent.send_signal(signal.SIGKILL)
  parent.wait()
  end = time.monotonic() + 30
  while not _is_gone(worker):
    assert time.monotonic() < end
    time.sleep(0.05)


def _is_gone(pid):
  try:
    state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
  except FileNotFoundError:
    return True
  return state.split()[0] == "Z"  # nobody waits for it any more


def test_workers_and_readers_need_no_jax():
  """Each worker would start a second later and take 200 MB more."""
  code = """
    import sys
    from gkd.data.builder import workers, lookup
    print({'jax', 'flax', 'tensorflow', 'seqio'} & set(sys.modules))
  """
  assert child.run(code) == "set()"


def test_shards_grow_so_that_few_files_are_open():
  sizes = [shards.rows_in(index) for index in range(256)]
  assert sizes[0] == 1 << 14
  assert sum(sizes) == 64 * (1 << 14) * (1 + 2 + 4 + 8)
  assert shards.rows_in(10_000) == 1 << 17
