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


@pytest.mark.parametrize(
  ("damage", "message"),
  [
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


def _truncate(file):
  data = file.read_bytes()
  file.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
  "damage",
  [
    _truncate,
    lambda file: file.write_bytes(b""),
    lambda file: file.write_bytes(b"not gzip at all"),
    lambda file: file.write_bytes(gzip.compress(b"too short")),
  ],
)
def test_damaged_chunk_is_an_error_when_read(folder, damage):
  damage(folder / "a.b" / "1.0")
  stored = zarr_arrays.open_array(folder, "a.b")
  with pytest.raises(
    UserError, match=r"a\.b cannot be read .*copy it"
  ) as error:
    stored.read()
  assert "1.0" in str(error.value)
  assert "\n" not in str(error.value)


def test_flipped_byte_in_a_chunk_is_noticed(folder):
  file = folder / "a.b" / "1.0"
  data = bytearray(file.read_bytes())
  data[-8] ^= 1  # of the checksum
  file.write_bytes(data)
  with pytest.raises(UserError, match=r"a\.b cannot be read"):
    zarr_arrays.open_array(folder, "a.b").read()


def test_a_path_does_not_lead_out_of_the_folder(folder):
  inner = folder / "inner"
  inner.mkdir()
  with pytest.raises(UserError, match="leads out of the checkpoint's folder"):
    zarr_arrays.open_array(inner, "../a.b")
