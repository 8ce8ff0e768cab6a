"""Arrays one at a time are those that orbax saves and loads at once."""

from typing import ClassVar
import weakref

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import pytest

from gkd import trees
from gkd.checkpoints import checkpoint
from gkd.checkpoints import one_by_one
from gkd.types import UserError
from tests.checkpoints.test_store import make_state

ARRAYS: dict[str, np.ndarray] = {
  "a/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
  "a/layers_1/scale": np.arange(5, dtype=np.float32),
  "a/zeros": np.zeros((6, 2), np.float32),
  "b": np.arange(14, dtype=ml_dtypes.bfloat16).reshape(7, 2),
}


class Kept:
  """An array that knows when it is read, and which others are then held."""

  held: ClassVar[list] = []

  def __init__(self, array):
    self.array = array
    self.shape, self.dtype = array.shape, array.dtype.name

  def read(self):
    """Only what is small may be held meanwhile."""
    alive = [ref() for ref in self.held if ref() is not None]
    assert sum(x.nbytes for x in alive) <= one_by_one._CHUNK_BYTES
    assert all(x.nbytes <= one_by_one._SMALL_BYTES for x in alive)
    copy = self.array.copy()
    self.held.append(weakref.ref(copy))
    return copy


def kept(arrays):
  return {name: Kept(array) for name, array in arrays.items()}


@pytest.mark.parametrize(("small", "chunk"), [(0, 16), (0, 99), (40, 50)])
def test_orbax_loads_what_is_written_one_array_at_a_time(
  tmp_path, monkeypatch, small, chunk
):
  monkeypatch.setattr(one_by_one, "_SMALL_BYTES", small)
  monkeypatch.setattr(one_by_one, "_CHUNK_BYTES", chunk)
  one_by_one.write_arrays(tmp_path / "c", kept(ARRAYS))
  found = trees.flatten(jax.device_get(ocp.load(tmp_path / "c")))
  again = one_by_one.open_arrays(tmp_path / "c")
  assert list(found) == list(again) == list(ARRAYS)
  for name, array in ARRAYS.items():
    for loaded in (np.asarray(found[name]), again[name].read()):
      assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
      assert loaded.tobytes() == array.tobytes()


def test_the_hash_is_that_of_the_whole_tree(tmp_path):
  content = checkpoint.ContentHash()
  one_by_one.write_arrays(tmp_path / "c", kept(ARRAYS), content)
  wanted = checkpoint.content_sha256(trees.unflatten(ARRAYS))
  assert content.hexdigest() == wanted


def test_any_tree_of_orbax_is_read_and_a_part_of_it(tmp_path):
  state = make_state(3)
  ocp.save(tmp_path / "c", state)
  found = one_by_one.open_arrays(tmp_path / "c", "params")
  wanted = trees.flatten(jax.device_get(state.params))
  assert list(found) == list(wanted)
  for name, array in wanted.items():
    assert found[name].shape == array.shape
    assert found[name].dtype == str(array.dtype)
    assert found[name].read().tobytes() == np.asarray(array).tobytes()
  everything = one_by_one.open_arrays(tmp_path / "c")
  assert len(everything) > len(found)
  assert "params/half" in everything


@pytest.mark.parametrize("text", ["{", "[]", '{"tree_metadata": {"x": {}}}'])
def test_damaged_names_are_one_line(tmp_path, text):
  one_by_one.write_arrays(tmp_path / "c", kept(ARRAYS))
  (tmp_path / "c" / "state" / "_METADATA").write_text(text)
  with pytest.raises(UserError, match=r"_METADATA is missing or not") as error:
    one_by_one.open_arrays(tmp_path / "c")
  assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path):
  one_by_one.write_arrays(tmp_path / "c", kept(ARRAYS))
  (tmp_path / "c" / "state" / "manifest.ocdbt").unlink()
  with pytest.raises(UserError, match=r"the array a/kernel cannot") as error:
    one_by_one.open_arrays(tmp_path / "c")
  assert "\n" not in str(error.value)
