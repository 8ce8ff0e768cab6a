"""What is written is what T5X wrote, file by file and byte by byte."""

import dataclasses
import json
from pathlib import Path

from flax import serialization
import ml_dtypes
import numpy as np
import pytest

from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.t5x import t5x_reader
from gkd.checkpoints.t5x import t5x_writer
from gkd.types import UserError


def files(folder: Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def assert_same_files(got, want):
  assert sorted(got) == sorted(want)
  for name, data in want.items():
    assert got[name] == data, name


@pytest.mark.parametrize("step", [0, 10])
@pytest.mark.parametrize("model", ["t5_1_1_tiny", "t5_1_0_tiny"])
def test_folder_equals_the_one_of_t5x(t5x_checkpoint, tmp_path, model, step):
  path = t5x_checkpoint(model, "legacy", step)
  t5x_writer.write(tmp_path, t5x_reader.open_checkpoint(path, {}))
  assert_same_files(files(tmp_path), files(path))


def test_orbax_becomes_the_legacy_folder_of_the_same_step(
  t5x_checkpoint, tmp_path
):
  found = t5x_reader.open_checkpoint(
    t5x_checkpoint("t5_1_1_tiny", "orbax", 10), {}
  )
  t5x_writer.write(tmp_path, found)
  want = files(t5x_checkpoint("t5_1_1_tiny", "legacy", 10))
  assert_same_files(files(tmp_path), want)


def test_one_bias_per_layer_is_written_stacked(t5x_checkpoint, tmp_path):
  path = t5x_checkpoint("t5_1_1_scan_tiny", "legacy", 0)
  found = t5x_reader.open_checkpoint(path, {})
  t5x_writer.write(tmp_path, found)
  got, want = files(tmp_path), files(path)
  tree = serialization.msgpack_restore(got.pop("checkpoint"))
  full = serialization.msgpack_restore(want.pop("checkpoint"))
  assert_same_files(
    got, {name: data for name, data in want.items() if name[:7] == "target."}
  )
  assert tree["optimizer"]["target"] == full["optimizer"]["target"]
  assert tree["optimizer"]["state"] == {"step": 0}
  again = t5x_reader.open_checkpoint(tmp_path, {})
  assert again.config == found.config
  for name, leaf in found.leaves.items():
    np.testing.assert_array_equal(again.leaves[name].read(), leaf.read())


def test_slots_of_a_model_with_bias_per_layer_are_refused(
  t5x_checkpoint, tmp_path
):
  path = t5x_checkpoint("t5_1_1_scan_tiny", "legacy", 0)
  found = t5x_reader.open_checkpoint(path, {})
  slot = Leaf((1,), "float32", lambda: np.zeros(1, np.float32))
  found = dataclasses.replace(found, slots={"m/encoder/encoder_norm": slot})
  with pytest.raises(UserError, match="convert it without slots"):
    t5x_writer.write(tmp_path, found)
  assert list(tmp_path.iterdir()) == []


def test_layers_of_two_types_do_not_fit_one_array(t5x_checkpoint, tmp_path):
  path = t5x_checkpoint("t5_1_1_scan_tiny", "legacy", 0)
  found = t5x_reader.open_checkpoint(path, {})
  name = "encoder/layers_1/mlp/wo/kernel"
  half = dataclasses.replace(found.leaves[name], dtype="bfloat16")
  found = dataclasses.replace(found, leaves={**found.leaves, name: half})
  message = "encoder/encoder/mlp/wo/kernel are partly float32"
  with pytest.raises(UserError, match=message):
    t5x_writer.write(tmp_path, found)


def test_bfloat16_in_several_chunks_comes_back_bit_for_bit(
  t5x_checkpoint, tmp_path, monkeypatch
):
  """[128, 32] of 2 bytes in chunks of 1 KiB: more than are written at once."""
  monkeypatch.setattr(t5x_writer, "_CHUNK_BYTES", 1024)
  found = t5x_reader.open_checkpoint(
    t5x_checkpoint("t5_1_0_tiny", "legacy", 10), {}
  )
  bits = np.random.default_rng(0).integers(0, 2**16, (128, 32), np.uint16)
  array = bits.view(ml_dtypes.bfloat16)  # infinities and NaNs among them
  name = "token_embedder/embedding"
  leaf = Leaf(array.shape, "bfloat16", lambda: array)
  leaves = {**found.leaves, name: leaf}
  found = dataclasses.replace(found, leaves=leaves, slots={}, step=2**31 - 1)
  t5x_writer.write(tmp_path, found)
  folder = tmp_path / "target.token_embedder.embedding"
  about = json.loads((folder / ".zarray").read_text())
  assert about["dtype"] == "bfloat16"
  assert about["chunks"] == [16, 32]
  assert len(list(folder.iterdir())) == 1 + 8
  again = t5x_reader.open_checkpoint(tmp_path, {})
  assert again.step == 2**31 - 1
  np.testing.assert_array_equal(again.leaves[name].read().view("u2"), bits)
  for other in set(leaves) - {name}:
    np.testing.assert_array_equal(
      again.leaves[other].read(), leaves[other].read()
    )


def test_factored_slots_are_files_and_unused_ones_are_not(
  t5x_checkpoint, tmp_path
):
  """T5X partitions the slots in use; the others stay in the msgpack file."""
  found = t5x_reader.open_checkpoint(
    t5x_checkpoint("t5_1_0_tiny", "legacy", 10), {}
  )
  name = "token_embedder/embedding"
  factored = {"v": 1, "v_row": 32, "v_col": 128, "m": 1}
  arrays = {
    f"{kind}/{name}": np.arange(size, dtype=np.float32)
    for kind, size in factored.items()
  }
  slots = {
    key: Leaf(array.shape, "float32", lambda array=array: array)
    for key, array in arrays.items()
  }
  found = dataclasses.replace(found, slots={**found.slots, **slots})
  t5x_writer.write(tmp_path, found)
  prefix = "state.param_states.token_embedder.embedding."
  written = {path.name for path in tmp_path.glob(f"{prefix}*")}
  assert written == {f"{prefix}v_row", f"{prefix}v_col"}
  again = t5x_reader.open_checkpoint(tmp_path, {})
  for key, array in arrays.items():
    np.testing.assert_array_equal(again.slots[key].read(), array)


def test_msgpack_is_written_last(t5x_checkpoint, tmp_path):
  """A write that fails leaves what readers know to be half-written."""
  found = t5x_reader.open_checkpoint(
    t5x_checkpoint("t5_1_0_tiny", "legacy", 0), {}
  )

  def fail():
    raise OSError("no space")

  name = "token_embedder/embedding"
  broken = dataclasses.replace(found.leaves[name], read=fail)
  leaves = {**found.leaves, name: broken}
  with pytest.raises(OSError, match="no space"):
    t5x_writer.write(tmp_path, dataclasses.replace(found, leaves=leaves))
  with pytest.raises(UserError, match="has arrays, but not the file"):
    t5x_reader.open_checkpoint(tmp_path, {})


@pytest.mark.parametrize(
  ("shape", "elements", "chunks"),
  [
    ((), 1, ()),
    ((5,), 10, (5,)),
    ((512, 6), 4096, (512, 6)),
    # 64 MiB of float32 are 2**24 numbers: T5's tables and kernels.
    ((32128, 4096), 2**24, (4016, 4096)),
    ((4096, 10240), 2**24, (4096, 2560)),
    ((4096, 24, 10240), 2**24, (512, 24, 1024)),
    ((7, 7), 10, (1, 7)),
    ((4, 4), 8, (2, 4)),
  ],
)
def test_chunks_are_those_of_t5x(shape, elements, chunks):
  """Expected: what T5X's own `_choose_chunk_shape` returned."""
  assert t5x_writer.chunk_shape(shape, elements) == chunks


@pytest.mark.parametrize("step", [-1, 2**31])
def test_a_step_beyond_int32_is_refused(t5x_checkpoint, tmp_path, step):
  found = t5x_reader.open_checkpoint(
    t5x_checkpoint("t5_1_0_tiny", "legacy", 0), {}
  )
  with pytest.raises(
    UserError, match=rf"step {step} does not fit .* 214748364"
  ):
    t5x_writer.write(tmp_path, dataclasses.replace(found, step=step))
  assert list(tmp_path.iterdir()) == []
