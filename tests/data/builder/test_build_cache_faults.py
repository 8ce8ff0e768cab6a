"""Making a cache survives kills, full disks, damage and changed data."""

import gzip
import importlib
import json
import logging
from pathlib import Path
import shutil
import signal
import sys
import threading
import time
from unittest import mock

import pytest
import seqio

from gkd import locks
from gkd.data import shards
from gkd.data.builder import build_cache as making
from gkd.data.cache import TokenCache
from gkd.text.vocabulary import ByteVocabulary
from gkd.types import UserError
from tests import child

TASK = """
import functools
import os

from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import metrics

import faults_functions


def rows(data_dir, limit, split):
  return list(sources.read_jsonl(data_dir, f"{split}.jsonl.gz"))[:limit]


def register(data_dir, vocabulary):
  limit = int(os.environ.get("FAULTS_LIMIT", "1000"))
  features.add_task(
    "faults",
    sources.rows_source(
      functools.partial(rows, data_dir, limit), ("train",)),
    vocabulary,
    postprocess=faults_functions.slow,
    metrics=[metrics.exact_match],
  )
"""
FUNCTIONS = """
import os
import time


def slow(text, example=None, is_target=False):
  time.sleep(float(os.environ.get("FAULTS_SECONDS", "0")))
  return text
"""
ROWS = 100
ROWS_PER_SHARD = 10
LENGTHS = {"inputs": 16, "targets": 16}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, caplog):
  """A task module and its data directory; small shards."""
  caplog.set_level(logging.INFO, "gkd")
  monkeypatch.setattr(shards, "FIRST_ROWS", ROWS_PER_SHARD)
  monkeypatch.syspath_prepend(str(tmp_path / "code"))
  (tmp_path / "code").mkdir()
  (tmp_path / "code" / "faults_task.py").write_text(TASK)
  (tmp_path / "code" / "faults_functions.py").write_text(FUNCTIONS)
  importlib.invalidate_caches()
  write_rows(tmp_path, numbered())
  yield
  for name in ("faults_task", "faults_functions"):
    sys.modules.pop(name, None)
  if "faults" in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove("faults")


def numbered(text="row"):
  return [{"inputs": f"{text} {n}", "targets": f"t {n}"} for n in range(ROWS)]


def write_rows(folder, rows):
  (folder / "data").mkdir(exist_ok=True)
  with gzip.open(folder / "data" / "train.jsonl.gz", "wt") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)


def make(folder, name="caches", num_workers=1, check=False, **changes):
  options = {
    "cache_dir": folder / name,
    "lengths": LENGTHS,
    "task_module": "faults_task",
    "data_dir": str(folder / "data"),
    "vocabulary": ByteVocabulary(),
    **changes,
  }
  spec = making.CacheSpec(task="faults", split="train", **options)
  return making.find_or_build(spec, num_workers=num_workers, check=check)


def files(path):
  """Contents without the dates of raw files."""
  found = {file.name: file.read_bytes() for file in Path(path).iterdir()}
  info = json.loads(found.pop("info.json"))
  info.pop("raw_files")
  return found, info


def shard(path, index):
  return Path(path) / shards.name(index)


def test_kill_9_keeps_finished_shards(tmp_path, caplog):
  """Killed for real, with its workers at work, and continued."""
  code = """
    import pathlib, sys
    from tests.data.builder import test_build_cache_faults as t

    t.shards.FIRST_ROWS = t.ROWS_PER_SHARD
    sys.path.insert(0, sys.argv[1] + "/code")
    t.make(pathlib.Path(sys.argv[1]), num_workers=2)
  """
  process = child.start(code, tmp_path, FAULTS_SECONDS="0.03")
  sidecars = "caches/faults/.*.partial/?????.json"
  while len(done := list(tmp_path.glob(sidecars))) < 3:
    assert process.poll() is None
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.wait()
  (folder,) = tmp_path.glob("caches/faults/.*.partial")
  kept = {
    file.stem: shard(folder / "cache", int(file.stem)).stat().st_ino
    for file in done
  }
  assert not list(tmp_path.glob("caches/faults/train-*"))
  path = make(tmp_path)
  assert "rows are done" in caplog.text
  assert {n: shard(path, int(n)).stat().st_ino for n in kept} == kept
  assert files(path) == files(make(tmp_path, "others"))
  assert len(TokenCache(path)) == ROWS
  assert not list(tmp_path.glob("caches/faults/.*.partial"))


def test_a_second_process_waits_and_takes_what_the_first_made(
  tmp_path, monkeypatch, caplog
):
  path = Path(make(tmp_path))
  aside = path.rename(tmp_path / "aside")
  held = threading.Event()

  def first():
    lock = path.with_name(f".{path.name}.lock")
    with locks.hold(lock, "cache"):
      held.set()
      while "waiting for process" not in caplog.text:
        time.sleep(0.01)
      aside.rename(path)

  monkeypatch.setattr(
    making, "_write_shards", lambda *args: pytest.fail("makes it again")
  )
  thread = threading.Thread(target=first)
  thread.start()
  held.wait()
  assert make(tmp_path) == str(path)
  thread.join()


def flip(file):
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 4
  file.write_bytes(content)


def test_a_damaged_cache_is_made_anew_when_checked_and_kept_until_then(
  tmp_path, monkeypatch, caplog
):
  """Rebuilding may be killed too."""
  path = make(tmp_path)
  before = files(path)
  assert make(tmp_path, check=True) == path
  assert "made anew" not in caplog.text
  flip(shard(path, 3))
  # Its size is right, so that only reading it tells.
  assert make(tmp_path) == path
  cache = TokenCache(path)
  assert cache.read([29])[0].prompt == "row 29"
  message = (
    "damaged cache: .*rows-00003.array_record differs from what was written;"
    " `gkd cache make` with its --gin_file makes it anew$"
  )
  with pytest.raises(UserError, match=message):
    cache.read([0, 30])

  with monkeypatch.context() as patch:
    killed = mock.Mock(side_effect=KeyboardInterrupt)
    patch.setattr(making.CacheWriter, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
      make(tmp_path, check=True)
  assert "damaged cache" in caplog.text
  assert f"cache {path} is made anew" in caplog.text
  assert shard(path, 9).exists()
  partial = Path(path).with_name(f".{Path(path).name}.partial")
  assert len(list(partial.glob("?????.json"))) == ROWS // ROWS_PER_SHARD
  assert make(tmp_path, check=True) == path
  assert files(path) == before
  assert not partial.exists()


def test_changed_raw_files_make_another_cache(tmp_path, caplog):
  path = make(tmp_path)
  assert TokenCache(path).info["raw_files"].keys() == {"train.jsonl.gz"}
  write_rows(tmp_path, numbered("other"))
  other = make(tmp_path)
  assert "stale: raw file" in caplog.text
  assert other != path
  assert TokenCache(other).read([0])[0].prompt == "other 0"
  assert TokenCache(path).read([0])[0].prompt == "row 0"


def test_a_cache_outlives_its_raw_files(tmp_path, caplog):
  path = make(tmp_path)
  shutil.rmtree(tmp_path / "data")
  for changes in ({}, {"data_dir": None}, {"check": True}):
    assert make(tmp_path, **changes) == path
  assert caplog.text.count("raw file train.jsonl.gz is not here") == 1
  flip(shard(path, 0))
  with pytest.raises(UserError, match="damaged cache"):
    make(tmp_path, check=True)
  with pytest.raises(UserError, match=r"data file train.jsonl.gz not found in"):
    make(tmp_path, "others")
  with pytest.raises(UserError, match="no data directory given"):
    make(tmp_path, "others", data_dir=None)
  assert not list((tmp_path / "others").rglob("*.array_record"))


def test_arguments_from_elsewhere_are_compared_when_checked(
  tmp_path, monkeypatch
):
  """Only the task knows them; asking it takes TensorFlow."""
  path = make(tmp_path)
  monkeypatch.setenv("FAULTS_LIMIT", "25")
  assert make(tmp_path) == path
  smaller = make(tmp_path, check=True)
  assert len(TokenCache(smaller)) == 25
  # From now on the newer one is found, until the other is asked for again.
  assert make(tmp_path) == smaller
  monkeypatch.setenv("FAULTS_LIMIT", "1000")
  assert make(tmp_path, check=True) == path
  assert make(tmp_path) == path


def test_raw_files_without_rows_or_damaged_are_named(tmp_path):
  write_rows(tmp_path, [])
  with pytest.raises(UserError, match="faults train has no rows; check the"):
    make(tmp_path)
  assert not list((tmp_path / "caches").rglob("*"))
  write_rows(tmp_path, numbered())
  file = tmp_path / "data" / "train.jsonl.gz"
  file.write_bytes(file.read_bytes()[:-20])
  with pytest.raises(UserError, match=r"data file .*train.jsonl.gz cannot be"):
    make(tmp_path)


def test_rows_beyond_the_limit_are_counted_over_shards(tmp_path, caplog):
  """Also over those that an earlier process finished."""
  lengths = {"inputs": 6, "targets": 16}  # "row 10" and EOS are 7
  path = make(tmp_path, lengths=lengths)
  assert TokenCache(path).info["truncated_inputs"] == ROWS - 10
  message = f"{ROWS - 10} rows had more than 6 inputs tokens and were cut"
  assert message in caplog.text
  for row in TokenCache(path).read([9, 10]):
    assert len(row.inputs) == 6
    assert row.inputs[-1] == 1
  with pytest.raises(UserError, match=f"{ROWS - 10} rows have more than 6"):
    make(tmp_path, lengths=lengths, overlong="refuse")
  assert not list(tmp_path.glob("caches/faults/.*.partial"))
  with pytest.raises(UserError, match="0 workers; give 1 to 256"):
    make(tmp_path, num_workers=0)


@pytest.mark.parametrize(
  "targets", [[None, "", None], ["eins", "", "drei", None]]
)
def test_rows_may_be_prompts_alone(tmp_path, caplog, targets):
  rows = [{"inputs": str(n), "targets": t} for n, t in enumerate(targets)]
  write_rows(tmp_path, rows)
  cache = TokenCache(make(tmp_path))
  assert cache.info["has_targets"] is False
  warned = "no target, the first is row 1 (counted from 0); such" in caplog.text
  assert warned == any(targets)
  assert cache.info.get("prompts_alone") == (2 if any(targets) else None)
  assert cache.with_target == [n for n, text in enumerate(targets) if text]
  for row, given in zip(cache.read(range(len(rows))), rows, strict=True):
    assert row.prompt == given["inputs"]
    assert row.inputs[-1] == 1
    assert row.reference == (given["targets"] or None)
    assert bool(row.targets.size) == bool(given["targets"])


TEXT_LINES = """
import os

import seqio

from gkd.tasks import features
from gkd.text import metrics
from gkd.text import postprocess


def both(dataset):
  return dataset.map(lambda line: {"inputs": line, "targets": line})


def register(data_dir, vocabulary):
  files = os.environ["FAULTS_FOLDER"] + "/*.txt"
  features.add_task(
    "faults",
    seqio.TextLineDataSource({"train": files}),
    vocabulary,
    preprocess=both,
    postprocess=postprocess.strip,
    metrics=[metrics.exact_match],
  )
"""


@pytest.mark.parametrize("inside", [True, False])
def test_changed_files_of_seqios_own_sources_are_noticed(
  tmp_path, caplog, monkeypatch, inside
):
  folder = tmp_path / ("data" if inside else "elsewhere")
  folder.mkdir(exist_ok=True)
  file = folder / "a.txt"
  file.write_text("one\ntwo\n")
  monkeypatch.setenv("FAULTS_FOLDER", str(folder))
  (tmp_path / "code" / "faults_task.py").write_text(TEXT_LINES)
  path = make(tmp_path)
  name = "a.txt" if inside else str(file)
  assert TokenCache(path).info["raw_files"].keys() == {name}
  assert make(tmp_path) == path
  file.write_text("one\nthree\n")
  other = make(tmp_path)
  assert f"stale: raw file {file} has changed" in caplog.text
  assert TokenCache(other).read([1])[0].prompt == "three"
