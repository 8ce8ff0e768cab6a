"""zarr arrays, whole and damaged: nothing missing is ever read as zeros."""

import gzip
import json

import numpy as np
import pytest
import tensorstore as ts

from gkd.checkpoints.t5x import zarr_arrays
from gkd.types import UserError

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


def test_array_of_several_chunks(folder):
  stored = zarr_arrays.open_array(folder, "a.b/")
  assert (stored.shape, stored.dtype) == ((6, 4), "float32")
  assert stored.place == str(folder / "a.b")
  np.testing.assert_array_equal(stored.read(), ARRAY)
  assert stored.read().flags.c_contiguous
  np.testing.assert_array_equal(stored.read(3), ARRAY[:, 3])


def test_chunks_cut_short_at_the_edge(folder):
  """The last row of a grid may stick out: 6 = 4 + 2."""
  about = json.loads((folder / "a.b" / ".zarray").read_text())
  for name in ("0.0", "0.1"):
    column = int(name[-1]) * 2
    part = np.zeros((4, 2), np.float32)
    part[:] = ARRAY[:4, column : column + 2]
    (folder / "a.b" / name).write_bytes(gzip.compress(part.tobytes()))
    part[:2] = ARRAY[4:, column : column + 2]
    last = folder / "a.b" / f"1.{column // 2}"
    last.write_bytes(gzip.compress(part.tobytes()))
  for column in (0, 1):
    (folder / "a.b" / f"2.{column}").unlink()
  about["chunks"] = [4, 2]
  (folder / "a.b" / ".zarray").write_text(json.dumps(about))
  stored = zarr_arrays.open_array(folder, "a.b")
  np.testing.assert_array_equal(stored.read(), ARRAY)


def test_inline_array_and_scalar(folder):
  stored = zarr_arrays.in_memory(ARRAY.T, "here")
  np.testing.assert_array_equal(stored.read(), ARRAY.T)
  assert stored.read().flags.c_contiguous
  assert zarr_arrays.in_memory(np.int32(3), "here").read().shape == ()
  assert stored.place == "here"


def _say(folder, **changes):
  about = json.loads((folder / ".zarray").read_text())
  (folder / ".zarray").write_text(json.dumps({**about, **changes}))


def _flip_a_bit_of_the_checksum(data):
  return data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]


def _chunk(change):
  def damage(folder):
    file = folder / "1.0"
    file.write_bytes(change(file.read_bytes()))

  return damage


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (_chunk(lambda data: data[: len(data) // 2]), r"1\.0"),
    (_chunk(lambda data: b""), r"1\.0"),
    (_chunk(lambda data: b"not gzip at all"), r"1\.0"),
    (_chunk(lambda data: gzip.compress(b"too short")), r"1\.0"),
    (_chunk(_flip_a_bit_of_the_checksum), "cannot be read"),
    (lambda f: (f / "2.0").unlink(), r"chunk \{2, 0\} .* is missing"),
    (lambda f: (f / ".zarray").unlink(), r"a\.b/\.zarray.* does not exist"),
    (lambda f: (f / ".zarray").write_text("{"), r"\.zarray.*Invalid JSON"),
    (lambda f: _say(f, zarr_format=3), r"\.zarray.*zarr_format"),
    (lambda f: _say(f, chunks=[2]), r"\.zarray.*chunks"),
    (lambda f: _say(f, chunks=[2, 0]), r"\.zarray.*chunks"),
    (lambda f: _say(f, shape=[6, -4]), r"\.zarray.*shape"),
    # Of an absurd shape no memory is asked for.
    (lambda f: _say(f, shape=[1 << 40, 4]), "Unable to allocate"),
    (lambda f: _say(f, shape=[1 << 62, 4]), "cannot be read"),
    (lambda f: _say(f, dtype="<q9"), r"\.zarray.*Unsupported zarr dtype"),
  ],
)
def test_what_is_damaged_or_missing_is_never_read_as_zeros(
  folder, damage, message
):
  damage(folder / "a.b")
  with pytest.raises(UserError, match=message) as error:
    zarr_arrays.open_array(folder, "a.b").read()
  assert "\n" not in str(error.value)
  assert str(error.value).startswith(f"{folder / 'a.b'} cannot be read (")


def test_a_path_does_not_lead_out_of_the_folder(folder):
  inner = folder / "inner"
  inner.mkdir()
  with pytest.raises(UserError, match="leads out of the checkpoint's folder"):
    zarr_arrays.open_array(inner, "../a.b")
