"""safetensors files: the format by hand, and each way a file can be broken."""

import json
import struct

import numpy as np
import pytest

from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.hf import safetensors_file
from gkd.types import UserError
from tests.checkpoints import tiny_models

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
ARRAYS = {
  "b": np.arange(6, dtype=np.float32).reshape(2, 3),
  "a": np.array([1.5, -2.0], tiny_models.BFLOAT16),
  "é": np.float32([7]),
}


def by_hand(header, data: bytes) -> bytes:
  """The format as its specification has it."""
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, begin, end):
  return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = {
  "b": entry("F32", [2, 3], 0, 24),
  "__metadata__": {"format": "pt"},
  "a": entry("BF16", [2], 24, 28),
}
DATA = ARRAYS["b"].tobytes() + ARRAYS["a"].tobytes()


def test_what_is_written_is_what_the_package_writes(golden, tmp_path):
  """Byte for byte, the files that transformers saved."""
  for file in sorted((golden / "hf").rglob("*.safetensors")):
    copy = tmp_path / file.name
    safetensors_file.write_file(copy, safetensors_file.open_file(file))
    assert copy.read_bytes() == file.read_bytes(), file


def test_written_arrays_are_aligned_and_come_back(tmp_path):
  leaves = tiny_models.as_leaves(ARRAYS)
  safetensors_file.write_folder(tmp_path, leaves)
  content = (tmp_path / FILE).read_bytes()
  length = struct.unpack("<Q", content[:8])[0]
  assert length % 8 == 0
  header = json.loads(content[8 : 8 + length])
  assert header["__metadata__"] == {"format": "pt"}
  assert header["a"]["data_offsets"] == [28, 32]  # after all wider ones
  tensors = safetensors_file.open_folder(tmp_path)
  tiny_models.assert_same_arrays(tensors, dict(sorted(leaves.items())))


def test_shards_hold_no_more_than_they_may(tmp_path):
  leaves = tiny_models.as_leaves(
    {f"t{i}": np.full(i, i, np.float32) for i in (4, 1, 2, 9, 1)}
  )
  safetensors_file.write_folder(tmp_path, leaves, shard_bytes=20)
  index = json.loads((tmp_path / INDEX).read_text())
  assert index["metadata"] == {"total_parameters": 16, "total_size": 64}
  name = "model-0000{}-of-00003.safetensors".format
  assert index["weight_map"] == {
    "t4": name(1),
    "t1": name(1),
    "t2": name(2),
    "t9": name(3),  # larger than a shard may be: alone
  }
  assert not (tmp_path / FILE).exists()
  tensors = safetensors_file.open_folder(tmp_path)
  tiny_models.assert_same_arrays(tensors, dict(sorted(leaves.items())))


def test_one_array_is_held_at_a_time(tmp_path):
  alive, most = 0, 0

  class Counted(np.ndarray):
    def __del__(self):
      nonlocal alive
      alive -= self.base is None

  def read():
    nonlocal alive, most
    alive += 1
    most = max(most, alive)
    return np.ndarray.__new__(Counted, (3,), np.float32)

  leaves = {name: Leaf((3,), "float32", read) for name in "abcd"}
  safetensors_file.write_folder(tmp_path, leaves)
  assert most == 1


BROKEN = {
  "long": by_hand(GOOD, DATA + b"x"),
  "no json": by_hand(b"{]" * 9, DATA),
  "deep": by_hand(b"[" * 100_000, DATA),
  "half an entry": by_hand({"a": {"dtype": "F32", "shape": [1]}}, DATA),
  "too small": by_hand({"a": entry("F32", [3], 0, 8)}, DATA[:8]),
  "a gap": by_hand({"a": entry("F32", [1], 4, 8)}, DATA[:8]),
  "overlap": by_hand(
    {"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 4, 8)}, DATA[:8]
  ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(tmp_path, kind):
  (tmp_path / FILE).write_bytes(BROKEN[kind])
  with pytest.raises(
    UserError, match=r"model.safetensors is damaged .*\(.+\); download it ag"
  ) as error:
    safetensors_file.open_folder(tmp_path)
  assert "\n" not in str(error.value)


def test_a_file_cut_anywhere_or_shrinking_is_noticed(tmp_path):
  file, whole = tmp_path / FILE, by_hand(GOOD, DATA)
  file.write_bytes(whole)
  tensors = safetensors_file.open_folder(tmp_path)
  tiny_models.assert_same_arrays(
    tensors, tiny_models.as_leaves({n: ARRAYS[n] for n in ("a", "b")})
  )
  for length in range(len(whole)):
    file.write_bytes(whole[:length])
    with pytest.raises(UserError, match="is damaged or only half there"):
      safetensors_file.open_folder(tmp_path)
  with pytest.raises(UserError, match="is damaged or only half there"):
    tensors["a"].read()


@pytest.fixture
def sharded(tmp_path):
  safetensors_file.write_folder(
    tmp_path, tiny_models.as_leaves(ARRAYS), shard_bytes=4
  )
  return tmp_path


def reindex(folder, files):
  (folder / INDEX).write_text(json.dumps({"weight_map": files}))


def write_both(folder, files):
  """Array a into the shard of b as well."""
  both = {n: ARRAYS[n] for n in ("a", "b")}
  safetensors_file.write_file(folder / files["b"], tiny_models.as_leaves(both))


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (
      lambda folder, files: (folder / files["b"]).unlink(),
      r"model-00001-of-00003.safetensors is missing, which",
    ),
    (
      lambda folder, files: reindex(folder, files | {"c": files["b"]}),
      "disagree about the place of c;",
    ),
    (write_both, "disagree about the place of a;"),
    (
      lambda folder, _: (folder / FILE).write_bytes(by_hand(GOOD, DATA)),
      r"has both model.safetensors and .*remove",
    ),
    (
      lambda folder, _: (folder / INDEX).unlink(),
      r"00001-of-00003.safetensors without mod",
    ),
  ],
)
def test_index_and_shards_must_agree(sharded, damage, message):
  damage(sharded, tiny_models.read_json(sharded / INDEX)["weight_map"])
  with pytest.raises(UserError, match=message):
    safetensors_file.open_folder(sharded)


@pytest.mark.parametrize(
  "text",
  [
    "[]",
    "{",
    "{}",
    "[" * 100_000,
    '{"weight_map": {}}',
    '{"weight_map": {"a": 3}}',
    '{"weight_map": {"a": "../x"}}',
    '{"weight_map": {"a": ".."}}',
  ],
  ids=range(8),
)
def test_an_index_that_is_none_is_named(sharded, text):
  (sharded / INDEX).write_text(text)
  with pytest.raises(UserError, match="it is no index of safetensors files"):
    safetensors_file.open_folder(sharded)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"
BLOB = "../blobs/4d7a"  # of a cache of the hub, whose blobs were removed


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda f: None, r"has no model.safetensors; give"),
    (
      lambda f: (f / FILE).write_text(LFS),
      r"is a pointer of git-lfs .* git lfs pull",
    ),
    *(
      (
        lambda f, name=name: (f / name).symlink_to(BLOB),
        rf"{name} is a link to {BLOB}, which is not there",
      )
      for name in (FILE, INDEX)
    ),
  ],
)
def test_what_was_not_downloaded_is_told_from_damage(tmp_path, change, message):
  change(tmp_path)
  with pytest.raises(UserError, match=message):
    safetensors_file.open_folder(tmp_path)


def test_other_types_are_named_as_the_file_names_them(tmp_path):
  header = {"a": entry("F16", [2], 0, 4), "b": entry("F8_E4M3", [2], 4, 6)}
  halves = np.array([1 / 3, 65504], np.float16)
  (tmp_path / FILE).write_bytes(by_hand(header, halves.tobytes() + b"12"))
  tensors = safetensors_file.open_folder(tmp_path)
  assert [leaf.dtype for leaf in tensors.values()] == ["float32", "F8_E4M3"]
  read = tensors["a"].read()
  assert read.dtype == np.float32
  np.testing.assert_array_equal(read, halves)
