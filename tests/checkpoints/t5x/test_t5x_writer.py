"""What T5X's writer does with chunks, slots and what T5X does not have.

That the files are those of T5X, byte by byte: see test_conversion.
"""

import dataclasses

import numpy as np
import pytest

from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.t5x import t5x_reader
from gkd.checkpoints.t5x import t5x_writer
from gkd.types import UserError
from tests.checkpoints import tiny_models

NAME = "token_embedder/embedding"


def changed(leaf, **changes):
  """A model with another embedding table."""
  made = tiny_models.make(**changes)
  return dataclasses.replace(made, leaves={**made.leaves, NAME: leaf})


def test_bfloat16_in_several_chunks_comes_back_bit_for_bit(
  tmp_path, monkeypatch
):
  """More chunks than are written at once: [128, 16] of 2 bytes, 512 a chunk."""
  monkeypatch.setattr(t5x_writer, "_CHUNK_BYTES", 512)
  bits = np.random.default_rng(0).integers(0, 2**16, (128, 16), np.uint16)
  array = bits.view(tiny_models.BFLOAT16)  # infinities and NaNs among them
  leaf = tiny_models.as_leaves({NAME: array})[NAME]
  made = dataclasses.replace(changed(leaf, vocab_size=128), step=2**31 - 1)
  t5x_writer.write(tmp_path, made)
  folder = tmp_path / "target.token_embedder.embedding"
  about = tiny_models.read_json(folder / ".zarray")
  assert (about["dtype"], about["chunks"]) == ("bfloat16", [16, 16])
  assert len(list(folder.iterdir())) == 1 + 8
  again = t5x_reader.open_checkpoint(tmp_path, {})
  assert again.step == 2**31 - 1
  tiny_models.assert_same_arrays(again.leaves, made.leaves)


def test_factored_slots_are_files_and_unused_ones_are_not(tmp_path):
  """T5X partitions the slots in use; the others stay in the msgpack file."""
  made = tiny_models.make(slots=True)
  factored = {"v": 1, "v_row": 16, "v_col": 48, "m": 1}
  slots = tiny_models.as_leaves(
    {
      f"{kind}/{NAME}": np.arange(size, dtype=np.float32)
      for kind, size in factored.items()
    }
  )
  made = dataclasses.replace(made, slots={**made.slots, **slots})
  t5x_writer.write(tmp_path, made)
  prefix = "state.param_states.token_embedder.embedding."
  written = {path.name for path in tmp_path.glob(f"{prefix}*")}
  assert written == {f"{prefix}v_row", f"{prefix}v_col"}
  again = t5x_reader.open_checkpoint(tmp_path, {})
  tiny_models.assert_same_arrays(again.slots, made.slots)


def test_msgpack_is_written_last(tmp_path):
  """A write that fails leaves what readers know to be half-written."""

  def fail():
    raise OSError("no space")

  with pytest.raises(OSError, match="no space"):
    t5x_writer.write(tmp_path, changed(Leaf((48, 16), "float32", fail)))
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


def _of_two_types(made):
  name = "encoder/layers_1/mlp/wo/kernel"
  half = dataclasses.replace(made.leaves[name], dtype="bfloat16")
  return dataclasses.replace(made, leaves={**made.leaves, name: half})


@pytest.mark.parametrize(
  ("made", "message"),
  [
    (
      tiny_models.make(slots=True, bias_per_layer=True),
      "convert it without slots",
    ),
    (
      _of_two_types(tiny_models.make(bias_per_layer=True)),
      "encoder/encoder/mlp/wo/kernel are partly float32",
    ),
    (
      dataclasses.replace(tiny_models.make(), step=2**31),
      "step 2147483648 does not fit .* 2147483647",
    ),
    (dataclasses.replace(tiny_models.make(), step=-1), "step -1 does not fit"),
  ],
)
def test_what_t5x_does_not_have_is_refused(tmp_path, made, message):
  for refuse in (t5x_writer.check, lambda m: t5x_writer.write(tmp_path, m)):
    with pytest.raises(UserError, match=message):
      refuse(made)
  assert list(tmp_path.iterdir()) == []
