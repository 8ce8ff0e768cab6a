"""Arrays one at a time are those that orbax saves and loads at once."""

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import pytest

from gkd import trees
from gkd.checkpoints import one_by_one
from gkd.types import UserError
from tests.checkpoints.test_store import make_state

ARRAYS = {
  "a/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
  "a/layers_1/scale": np.arange(5, dtype=np.float32),
  "b": np.arange(4, dtype=np.int32),
}


def test_each_array_is_taken_when_the_one_before_is_let_go(
  tmp_path, monkeypatch
):
  """At most one group is held, which is one array when arrays are large."""
  monkeypatch.setattr(one_by_one, "_GROUP_BYTES", 1)
  saved = []
  save = ocp.partial.save

  def counting(path, tree):
    saved.append(list(trees.flatten(tree)))
    save(path, tree)

  monkeypatch.setattr(one_by_one.ocp.partial, "save", counting)
  given = []

  def arrays():
    for name, array in ARRAYS.items():
      given.append(len(saved))
      yield name, array

  one_by_one.write_arrays(tmp_path / "c", arrays())
  assert saved == [["a/kernel"], ["a/layers_1/scale"], ["b"]]
  assert given == [0, 0, 1]  # the next is looked at to know the group's end
  found = trees.flatten(jax.device_get(ocp.load(tmp_path / "c")))
  assert list(found) == list(ARRAYS)
  for name, array in ARRAYS.items():
    np.testing.assert_array_equal(found[name], array)


def test_small_arrays_are_saved_together(tmp_path, monkeypatch):
  saved = []
  monkeypatch.setattr(
    one_by_one.ocp.partial, "save", lambda _, tree: saved.append(tree)
  )
  monkeypatch.setattr(one_by_one.ocp.partial, "finalize", lambda _: None)
  one_by_one.write_arrays(tmp_path / "c", iter(ARRAYS.items()))
  assert [list(trees.flatten(tree)) for tree in saved] == [list(ARRAYS)]


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
  one_by_one.write_arrays(tmp_path / "c", iter(ARRAYS.items()))
  (tmp_path / "c" / "state" / "_METADATA").write_text(text)
  with pytest.raises(UserError, match=r"_METADATA is missing or not") as error:
    one_by_one.open_arrays(tmp_path / "c")
  assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path):
  one_by_one.write_arrays(tmp_path / "c", iter(ARRAYS.items()))
  (tmp_path / "c" / "state" / "manifest.ocdbt").unlink()
  with pytest.raises(UserError, match=r"the array a/kernel cannot") as error:
    one_by_one.open_arrays(tmp_path / "c")
  assert "\n" not in str(error.value)
