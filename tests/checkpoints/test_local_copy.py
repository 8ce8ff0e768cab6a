"""A foreign checkpoint is converted once, whole, and again when it changed."""

import logging
import os
import shutil
import threading

import ml_dtypes
import numpy as np
import pytest

from gkd.checkpoints import conversion
from gkd.checkpoints import local_copy
from gkd.checkpoints import source
from gkd.checkpoints import trained
from gkd.checkpoints.t5x import t5x_reader
from gkd.checkpoints.t5x import t5x_writer
from gkd.types import UserError
from tests.checkpoints import tiny_models


@pytest.fixture
def foreign(t5x_checkpoint, tmp_path):
  """A T5X checkpoint that a test may change."""
  there = t5x_checkpoint("t5_1_1_tiny", "legacy", 10)
  return shutil.copytree(there, tmp_path / "flan" / "checkpoint_10")


@pytest.fixture
def conversions(monkeypatch):
  """What was converted, one entry a conversion."""
  made, convert_really = [], conversion.convert

  def counting(source, *args, **named):
    made.append(source)
    return convert_really(source, *args, **named)

  monkeypatch.setattr(conversion, "convert", counting)
  return made


def copy_of(path, tmp_path, **named):
  return local_copy.localized(path, tmp_path / "cache", **named)


def test_it_is_converted_once_and_then_reused(
  foreign, tmp_path, conversions, caplog
):
  caplog.set_level(logging.INFO, "gkd")
  copy = copy_of(foreign, tmp_path)
  assert copy.parent == tmp_path / "cache" / "models"
  assert copy.name.startswith("flan_checkpoint_10-")
  assert f"{foreign} is a T5X checkpoint: converting it to {copy}" in (
    caplog.messages
  )
  wanted = t5x_reader.open_checkpoint(foreign, {})
  tiny_models.assert_same_arrays(source.open_any(copy).leaves, wanted.leaves)
  assert trained.locate(copy).step == 10
  before = tiny_models.files_of(copy)
  assert copy_of(foreign, tmp_path) == copy
  assert f"{foreign} is a T5X checkpoint: using its copy {copy}" in (
    caplog.messages
  )
  assert tiny_models.files_of(copy) == before
  assert len(conversions) == 1


def test_a_gkd_that_converts_otherwise_does_so(
  foreign, tmp_path, conversions, monkeypatch
):
  first = copy_of(foreign, tmp_path)
  monkeypatch.setattr(local_copy, "_VERSION", local_copy._VERSION + 1)
  assert copy_of(foreign, tmp_path) != first
  assert len(conversions) == 2


def test_changed_files_are_another_checkpoint(foreign, tmp_path, conversions):
  first = copy_of(foreign, tmp_path)
  file = foreign / "checkpoint"
  os.utime(file, ns=(1, 1))
  second = copy_of(foreign, tmp_path)
  assert second != first
  # The same parameters have the same identity, wherever and whenever.
  assert trained.locate(first).sha256 == trained.locate(second).sha256
  assert len(conversions) == 2
  given = copy_of(
    foreign, tmp_path, given={"mlp_activations": ["silu", "gelu"]}
  )
  assert given not in (first, second)
  assert source.open_any(given).config.mlp_activations == ("silu", "gelu")


def test_files_of_download_programs_do_not_count(foreign, tmp_path):
  first = copy_of(foreign, tmp_path)
  (foreign / ".cache").mkdir()
  (foreign / ".cache" / "etag").write_text("x")
  assert copy_of(foreign, tmp_path) == first


def test_bfloat16_becomes_float32_exactly(tmp_path):
  made = tiny_models.make(dtype=ml_dtypes.bfloat16)
  folder = tmp_path / "checkpoint_7"
  folder.mkdir()
  t5x_writer.write(folder, made)
  copy = copy_of(folder, tmp_path)
  assert copy.name.startswith(f"{tmp_path.name}_checkpoint_7-")
  _, params = source.read(copy)
  table = params["token_embedder"]["embedding"]
  wanted = made.leaves["token_embedder/embedding"].read().astype(np.float32)
  assert table.dtype == np.float32
  np.testing.assert_array_equal(table, wanted)


def test_ours_is_used_where_it_is(foreign, tmp_path, conversions):
  copy = copy_of(foreign, tmp_path)
  assert local_copy.localized(copy, tmp_path / "other") == copy
  assert not (tmp_path / "other").exists()
  assert len(conversions) == 1


def test_a_conversion_that_failed_leaves_no_copy(foreign, tmp_path):
  chunk = next(foreign.glob("target.decoder.layers_1.mlp.wo.kernel/0.0"))
  content = chunk.read_bytes()
  chunk.write_bytes(content[:-20])
  with pytest.raises(UserError, match="damaged, not whole or not of T5X"):
    copy_of(foreign, tmp_path)
  left = [f for f in (tmp_path / "cache" / "models").iterdir() if f.is_dir()]
  assert left == []
  chunk.write_bytes(content)
  assert source.open_any(copy_of(foreign, tmp_path)).step == 10


def test_what_a_killed_conversion_left_is_not_used(
  foreign, tmp_path, conversions
):
  copy = copy_of(foreign, tmp_path)
  shutil.rmtree(copy)
  copy.with_name(f".{copy.name}.partial").mkdir()
  assert copy_of(foreign, tmp_path) == copy
  assert len(conversions) == 2
  assert not copy.with_name(f".{copy.name}.partial").exists()


def test_the_second_of_two_waits_and_reuses(
  foreign, tmp_path, conversions, monkeypatch
):
  inside, go_on = threading.Event(), threading.Event()
  convert_counted = conversion.convert

  def slow(*args, **named):
    inside.set()
    assert go_on.wait(60)
    return convert_counted(*args, **named)

  monkeypatch.setattr(conversion, "convert", slow)
  found = []

  def ask():
    found.append(copy_of(foreign, tmp_path))

  first, second = threading.Thread(target=ask), threading.Thread(target=ask)
  first.start()
  assert inside.wait(60)
  second.start()
  second.join(0.5)
  assert second.is_alive()
  assert found == []
  go_on.set()
  first.join(60)
  second.join(60)
  assert len(set(found)) == 1
  assert len(found) == 2
  assert len(conversions) == 1


def test_none_of_the_formats_is_refused(tmp_path):
  (tmp_path / "notes").mkdir()
  (tmp_path / "notes" / "a.txt").write_text("x")
  with pytest.raises(UserError, match="is no checkpoint that gkd reads"):
    copy_of(tmp_path / "notes", tmp_path)
  assert not (tmp_path / "cache").exists()
