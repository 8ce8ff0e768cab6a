"""A cache is stale when its code or raw files have changed, and says so."""

import logging
import os

import pytest

from gkd.data import hashes
from gkd.data.builder import cache_key
from gkd.data.builder import staleness


@pytest.fixture
def raw(tmp_path):
  """A raw file in a data directory, and the info of a cache made of it."""
  file = tmp_path / "data" / "sub" / "train.gz"
  file.parent.mkdir(parents=True)
  file.write_bytes(b"one\ntwo\n")
  info = {"raw_files": staleness.describe({"sub/train.gz": file})}
  return tmp_path / "data", file, info


@pytest.fixture
def fresh(tmp_path, caplog):
  caplog.set_level(logging.INFO, "gkd")

  def ask(info, data_dir):
    return staleness.is_fresh(tmp_path / "cache", info, data_dir)

  return ask


def test_a_file_is_read_where_its_date_is_another_and_only_once(
  raw, fresh, monkeypatch
):
  data_dir, file, info = raw
  read = []
  digest = info["raw_files"]["sub/train.gz"]["sha256"]
  monkeypatch.setattr(
    staleness.hashes, "file_hash", lambda file: read.append(file) or digest
  )
  assert fresh(info, data_dir)
  assert read == []
  for date in (1, 2):
    os.utime(file, ns=(date, date))
    assert fresh(info, data_dir)
    assert fresh(info, data_dir)
    assert read == [file] * date


@pytest.mark.parametrize("content", [b"one\ntwO\n", b"one\n"])
def test_other_content_is_stale(raw, fresh, caplog, content):
  data_dir, file, info = raw
  file.write_bytes(content)
  os.utime(file, ns=(1, 1))
  assert not fresh(info, data_dir)
  assert f"stale: raw file {file} has changed since" in caplog.text


def test_without_the_file_the_cache_stands_and_says_so_once(raw, fresh, caplog):
  data_dir, file, info = raw
  file.unlink()
  for place in (data_dir, None, ""):
    assert fresh(info, place)
  assert caplog.text.count("sub/train.gz is not here") == 1


def test_changed_code_is_stale(fresh, caplog):
  module = "gkd.text.postprocess"
  digest = hashes.file_hash(cache_key.source_file(module))
  info = {"sources": {module: digest}, "key_format": cache_key.FORMAT}
  assert fresh(info, None)
  assert not fresh({**info, "sources": {module: "0"}}, None)
  assert "the code of gkd.text.postprocess has changed" in caplog.text
  assert not fresh({"sources": {module: digest}}, None)  # of an older key
  assert "the way in which gkd makes rows has changed" in caplog.text


def test_without_the_code_the_cache_stands_and_says_so_once(fresh, caplog):
  module = "no_such_tasks"
  info = {"sources": {module: "0"}, "key_format": cache_key.FORMAT}
  assert staleness.changed(info, None) is None
  assert staleness.missing(info, None) == [f"the code of {module}"]
  for _ in range(2):
    assert fresh(info, None)
  said = f"is used as it is: the code of {module} is not here"
  assert caplog.text.count(said) == 1
  assert "is stale" not in caplog.text
