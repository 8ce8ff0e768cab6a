"""zarr arrays, whole and damaged: nothing missing is ever read as zeros."""

import gzip
import os

import numpy as np
import pytest
import tensorstore as ts

from gkd.checkpoints import source
from gkd.checkpoints import zarr_arrays
from gkd.types import UserError
from tests.checkpoints import tiny_models

ARRAY = np.arange(24, dtype=np.float32).reshape(6, 4) + 1


@pytest.fixture
def folder(tmp_path):
  """One array "a.b" in six chunks, each [2, 2]."""
  spec = {
    "driver": "zarr",
    "dtype": "float32",
    "kvstore": {"driver": "file", "path": f"{tmp_path}/a.b/"},
    "metadata": {
      "shape": [6, 4],
      "chunks": [2, 2],
      "compressor": {"id": "gzip", "level": 1},
    },
  }
  ts.open(spec, create=True).result().write(ARRAY).result()
  return tmp_path


def open_array(folder, name="a.b"):
  return zarr_arrays.open_arrays(folder, {"x": name})["x"]


def test_array_of_several_chunks_and_a_part_of_it(folder):
  leaf = open_array(folder)
  assert (leaf.shape, leaf.dtype) == ((6, 4), "float32")
  np.testing.assert_array_equal(leaf.read(), ARRAY)
  assert leaf.read().flags.c_contiguous
  np.testing.assert_array_equal(leaf.read(3), ARRAY[:, 3])


def test_chunks_cut_short_at_the_edge(folder):
  """The last row of a grid may stick out: 6 = 4 + 2."""
  for column in (0, 1):
    part = np.zeros((2, 4, 2), np.float32)
    part.reshape(8, 2)[:6] = ARRAY[:, 2 * column : 2 * column + 2]
    for row in (0, 1):
      file = folder / "a.b" / f"{row}.{column}"
      file.write_bytes(gzip.compress(part[row].tobytes()))
    (folder / "a.b" / f"2.{column}").unlink()
  tiny_models.rewrite_json(folder / "a.b" / ".zarray", chunks=[4, 2])
  np.testing.assert_array_equal(open_array(folder).read(), ARRAY)


def _chunk(change):
  def damage(folder):
    file = folder / "1.0"
    file.write_bytes(change(file.read_bytes()))

  return damage


def _zarray(**changes):
  return lambda f: tiny_models.rewrite_json(f / ".zarray", **changes)


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (_chunk(lambda data: data[: len(data) // 2]), r"1\.0"),
    (_chunk(lambda data: b""), r"1\.0"),
    (_chunk(lambda data: b"not gzip at all"), r"1\.0"),
    (_chunk(lambda data: gzip.compress(b"too short")), r"1\.0"),
    # A bit of the checksum.
    (
      _chunk(lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]),
      "cannot be read",
    ),
    (lambda f: (f / "2.0").unlink(), r"chunk \{2, 0\} .* is missing"),
    (lambda f: (f / ".zarray").unlink(), r"a\.b/\.zarray.* does not exist"),
    (lambda f: (f / ".zarray").write_text("{"), r"\.zarray.*Invalid JSON"),
    (_zarray(zarr_format=3), r"\.zarray.*zarr_format"),
    (_zarray(chunks=[2]), r"\.zarray.*chunks"),
    (_zarray(chunks=[2, 0]), r"\.zarray.*chunks"),
    (_zarray(shape=[6, -4]), r"\.zarray.*shape"),
    # Of an absurd shape no memory is asked for.
    (_zarray(shape=[1 << 40, 4]), "Unable to allocate"),
    (_zarray(shape=[1 << 62, 4]), "cannot be read"),
    (_zarray(dtype="<q9"), r"\.zarray.*Unsupported zarr dtype"),
  ],
)
def test_what_is_damaged_or_missing_is_never_read_as_zeros(
  folder, damage, message
):
  damage(folder / "a.b")
  with pytest.raises(UserError, match=message) as error:
    open_array(folder).read()
  assert "\n" not in str(error.value)
  assert str(error.value).startswith(f"{folder / 'a.b'} cannot be read (")


def test_a_path_does_not_lead_out_of_the_folder(folder):
  (folder / "inner").mkdir()
  with pytest.raises(UserError, match="leads out of the checkpoint's folder"):
    open_array(folder / "inner", "../a.b")


@pytest.mark.parametrize("chunk", [10**12, 5 * 10**8])
def test_chunks_larger_than_the_array_are_refused_unread(tmp_path, chunk):
  """TensorStore would make room for one first: it ends the process there."""
  folder = tiny_models.save(tmp_path / "t5x", tiny_models.make(), "t5x")
  file = folder / "target.token_embedder.embedding" / ".zarray"
  tiny_models.rewrite_json(file, chunks=[chunk, 16])
  with pytest.raises(UserError, match=r"chunks of .* numbers, the ar"):
    source.open_checkpoint(folder)


@pytest.mark.parametrize(
  ("format", "name"),
  [
    ("t5x", "checkpoint"),
    ("t5x", "target.token_embedder.embedding/0.0"),
    ("hf", "model.safetensors"),
    ("hf", "config.json"),
    ("gkd", "state/manifest.ocdbt"),
  ],
)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_is_not_opened(tmp_path, format, name, kind):
  folder = tiny_models.save(tmp_path / format, tiny_models.make(), format)
  (folder / name).unlink()
  if kind == "pipe":
    os.mkfifo(folder / name)
  else:
    (folder / name).symlink_to("/dev/zero")
  with pytest.raises(UserError):
    tiny_models.read(folder)
