"""safetensors files, byte by byte as the format has them, and damaged ones."""

import json
import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from gkd.convert import safetensors_file
from gkd.convert.checkpoint import Leaf
from gkd.types import UserError
from tests.convert import tiny_models

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def file_of(header, data: bytes, length=None) -> bytes:
  """A file put together by the format's own description."""
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return (
    struct.pack("<Q", len(text) if length is None else length) + text + data
  )


def entry(begin, end, shape=(2,), dtype="F32"):
  return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def arrays(seed=0):
  random = np.random.default_rng(seed)
  shapes = {"b": (3, 4), "a": (5,), "zero": (0, 2), "one": (), "c": (2, 3, 2)}
  kinds = {"a": BFLOAT16, "c": BFLOAT16}
  return {
    name: random.normal(size=shape).astype(kinds.get(name, np.float32))
    for name, shape in sorted(shapes.items())
  }


def test_a_file_made_by_hand_is_read(tmp_path):
  """Placed in another order than named; bfloat16 is the upper half."""
  wide = np.array([[1.5, -2], [3e38, 0.1]], "<f4")
  upper = wide.view("<u4") >> 16
  narrow = upper.astype("<u2")
  header = {
    "__metadata__": {"format": "pt"},
    "wide": entry(8, 24, [2, 2]),
    "narrow": entry(0, 8, [2, 2], "BF16"),
  }
  file = tmp_path / "some.safetensors"
  file.write_bytes(file_of(header, narrow.tobytes() + wide.tobytes()))
  found = safetensors_file.open_file(file)
  assert list(found) == ["wide", "narrow"]
  assert found["narrow"].dtype == "bfloat16"
  np.testing.assert_array_equal(found["wide"].read(), wide)
  cut = (upper << 16).astype("<u4").view("<f4")
  np.testing.assert_array_equal(found["narrow"].read().astype(np.float32), cut)


def test_what_is_written_is_the_format_and_comes_back(tmp_path):
  file = tmp_path / "model.safetensors"
  wanted = arrays()
  safetensors_file.write_file(file, tiny_models.as_leaves(wanted))
  content = file.read_bytes()
  length = struct.unpack("<Q", content[:8])[0]
  header = json.loads(content[8 : 8 + length])
  assert length % 8 == 0
  assert header.pop("__metadata__") == {"format": "pt"}
  data = content[8 + length :]
  for name, array in wanted.items():
    begin, end = header[name]["data_offsets"]
    assert data[begin:end] == array.tobytes(), name
    assert header[name]["shape"] == list(array.shape)
    assert header[name]["dtype"] == {2: "BF16", 4: "F32"}[array.itemsize]
    assert begin % array.itemsize == 0
  assert len(data) == sum(array.nbytes for array in wanted.values())
  found = safetensors_file.open_folder(tmp_path)
  tiny_models.assert_same_arrays(found, tiny_models.as_leaves(wanted))


def test_shards_have_an_index_and_come_back(tmp_path):
  wanted = tiny_models.as_leaves(arrays())
  safetensors_file.write_folder(tmp_path, wanted, shard_bytes=50)
  names = sorted(file.name for file in tmp_path.iterdir())
  assert names == [
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
    "model.safetensors.index.json",
  ]
  index = tiny_models.read_json(tmp_path / names[-1])
  assert index["metadata"]["total_size"] == 4 * (12 + 1) + 2 * (5 + 12)
  for name, shard in index["weight_map"].items():
    assert name in safetensors_file.open_file(tmp_path / shard)
  tiny_models.assert_same_arrays(safetensors_file.open_folder(tmp_path), wanted)


def test_no_more_than_one_array_is_held(tmp_path):
  """Sixteen arrays of a megabyte, written and read."""
  size = 1 << 18

  def leaf(i):
    return Leaf((size,), "float32", lambda: np.full(size, i, np.float32))

  tensors = {f"t{i:02d}": leaf(i) for i in range(16)}
  tracemalloc.start()
  try:
    safetensors_file.write_folder(tmp_path, tensors)
    for i, found in enumerate(safetensors_file.open_folder(tmp_path).values()):
      assert found.read()[-1] == i
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert 4 * size < peak < 3 * 4 * size


DEEP = b"[" * 100_000
DAMAGES = {
  "it has 0 bytes": b"",
  "it has 5 bytes": b"12345",
  "its header would have": file_of({}, b"", length=10**15),
  "header would have 3 bytes": file_of({}, b"", length=3),
  "header cannot be read": file_of(b"{not JSON", b""),
  "header cannot": file_of(DEEP, b""),
  "cannot be read": file_of(b"[1, 2]", b""),
  "be read": file_of({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
  "read": file_of({"a": entry(0, 8, [2.0])}, bytes(8)),
  "header": file_of({"a": entry(8, 0)}, bytes(8)),
  "its header": file_of({"a": entry(-8, 0)}, bytes(8)),
  "header cannot be": file_of({"a": entry(0, 8, dtype=4)}, bytes(8)),
  "cannot be": file_of({"a": 3}, bytes(8)),
  "its header cannot be read": file_of(
    b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},'
    b' "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
    bytes(8),
  ),
  r"a \(3,\) F32 has 8 bytes": file_of({"a": entry(0, 8, [3])}, bytes(8)),
  r"a \(3,\) F16 has 8 bytes": file_of(
    {"a": entry(0, 8, [3], "F16")}, bytes(8)
  ),
  "b does not begin where": file_of(
    {"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)
  ),
  "a does not begin where": file_of({"a": entry(8, 16)}, bytes(16)),
  "speaks of 8 bytes of arrays, it has 7": file_of(
    {"a": entry(0, 8)}, bytes(7)
  ),
  "speaks of 8 bytes of arrays, it has 9": file_of(
    {"a": entry(0, 8)}, bytes(9)
  ),
}


@pytest.mark.parametrize("told", DAMAGES)
def test_a_damaged_file_is_named_in_a_line(tmp_path, told):
  file = tmp_path / "model.safetensors"
  file.write_bytes(DAMAGES[told])
  with pytest.raises(UserError, match=told) as error:
    safetensors_file.open_folder(tmp_path)
  assert str(error.value).startswith(f"{file} is damaged or only half there (")
  assert str(error.value).endswith("; download it again")
  assert "\n" not in str(error.value)


def test_a_file_cut_anywhere_is_noticed(tmp_path):
  file = tmp_path / "model.safetensors"
  safetensors_file.write_file(file, tiny_models.as_leaves(arrays()))
  whole = file.read_bytes()
  for length in range(0, len(whole), 13):
    file.write_bytes(whole[:length])
    with pytest.raises(UserError, match="damaged or only half there"):
      safetensors_file.open_folder(tmp_path)


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path):
  file = tmp_path / "model.safetensors"
  safetensors_file.write_file(file, tiny_models.as_leaves(arrays()))
  found = safetensors_file.open_file(file)
  file.write_bytes(file.read_bytes()[:-3])
  with pytest.raises(UserError, match="became shorter while it was read"):
    found["c"].read()


def test_a_pointer_of_git_lfs_is_told(tmp_path):
  (tmp_path / "model.safetensors").write_text(
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 99\n"
  )
  with pytest.raises(UserError, match=r"a pointer of git-lfs .* git lfs pull"):
    safetensors_file.open_folder(tmp_path)


def test_types_that_are_not_ours_keep_their_name(tmp_path):
  header = {"a": entry(0, 4, dtype="F16"), "b": entry(4, 6, dtype="F8_E4M3")}
  file = tmp_path / "model.safetensors"
  file.write_bytes(file_of(header, bytes(6)))
  found = safetensors_file.open_folder(tmp_path)
  assert [leaf.dtype for leaf in found.values()] == ["F16", "F8_E4M3"]


@pytest.fixture
def sharded(tmp_path):
  leaves = tiny_models.as_leaves(arrays())
  safetensors_file.write_folder(tmp_path, leaves, shard_bytes=50)
  return tmp_path


INDEX = "model.safetensors.index.json"


def test_a_missing_shard_is_named(sharded):
  (sharded / "model-00002-of-00003.safetensors").unlink()
  with pytest.raises(UserError, match=r"model-00002-of-.* is missing, which"):
    safetensors_file.open_folder(sharded)


def test_shards_without_an_index_are_refused(sharded):
  (sharded / INDEX).unlink()
  with pytest.raises(UserError, match=r"without model\.safetensors\.index"):
    safetensors_file.open_folder(sharded)


def test_an_index_that_names_what_is_not_there_is_refused(sharded):
  index = tiny_models.read_json(sharded / INDEX)["weight_map"]
  more = index | {"d": index["a"]}
  tiny_models.rewrite_json(sharded / INDEX, weight_map=more)
  with pytest.raises(UserError, match=f"{index['a']} lacks d, which model"):
    safetensors_file.open_folder(sharded)


def test_a_tensor_that_the_index_does_not_name_is_refused(sharded):
  index = tiny_models.read_json(sharded / INDEX)["weight_map"]
  file = index.pop("one")
  tiny_models.rewrite_json(sharded / INDEX, weight_map=index)
  with pytest.raises(UserError, match=f"{file} holds one, which .* not place"):
    safetensors_file.open_folder(sharded)


@pytest.mark.parametrize(
  "content",
  ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', "\xff"]
  + ['{"weight_map": {"a": "../model-00001-of-00003.safetensors"}}']
  + ["[" * 100_000],
)
def test_an_index_that_is_none_is_named(sharded, content):
  (sharded / INDEX).write_bytes(content.encode("latin-1"))
  with pytest.raises(UserError, match=f"{INDEX} is not an index of"):
    safetensors_file.open_folder(sharded)


def test_one_file_and_shards_together_are_refused(sharded):
  """Which of the two is meant cannot be known."""
  leaves = tiny_models.as_leaves(arrays())
  safetensors_file.write_file(sharded / "model.safetensors", leaves)
  with pytest.raises(UserError, match=r"has both .*; expected one of the two"):
    safetensors_file.open_folder(sharded)


def test_a_folder_without_any_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"has no model\.safetensors; give"):
    safetensors_file.open_folder(tmp_path)
