"""Every generation of T5X's index names the same arrays; damage is noticed."""

import shutil

import ml_dtypes
import numpy as np
import pytest

from gkd.checkpoints.t5x import t5x_folders
from gkd.checkpoints.t5x import t5x_index
from gkd.types import UserError
from tests.checkpoints import tiny_models
from tests.golden_t5x import restore
from tests.golden_t5x import save

NAME = "target/encoder/encoder_norm/scale"
FOLDER = "target.encoder.encoder_norm.scale"


def read(path):
  return t5x_index.read(t5x_folders.find(path))


def values(path) -> dict[str, np.ndarray]:
  return {name: array.read() for name, array in read(path)[0].items()}


def assert_same(arrays, wanted):
  assert arrays.keys() == wanted.keys()
  for name, array in wanted.items():
    assert arrays[name].dtype == array.dtype, name
    np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def specs(tree):
  """Every array spec of a tree, to change in place."""
  for value in tree.values():
    if isinstance(value, dict) and "kvstore" in value:
      yield value
    elif isinstance(value, dict):
      yield from specs(value)


def placeholders(tree, prefix=""):
  """The tree of the generations between: names of arrays instead of specs."""
  if not isinstance(tree, dict):
    return tree
  if "kvstore" in tree:
    return f"PLACEHOLDER://{prefix[:-1]}"
  return {
    key: placeholders(value, f"{prefix}{key}.") for key, value in tree.items()
  }


def norm_of(tree):
  return tree["optimizer"]["target"]["encoder"]["encoder_norm"]


def test_both_layouts_hold_the_same_arrays(t5x_checkpoint):
  legacy = t5x_checkpoint("t5_1_1_tiny", "legacy", 10)
  orbax = t5x_checkpoint("t5_1_1_tiny", "orbax", 10)
  assert_same(values(orbax), values(legacy))
  assert read(legacy)[1] == "msgpack and zarr (version 3)"
  assert read(orbax)[1] == "Orbax (what T5X writes today)"


def test_specs_of_other_drivers_and_of_old_tensorstore(copied):
  folder = copied()
  wanted, tree = values(folder), restore(folder)
  for i, spec in enumerate(specs(tree)):
    path = spec["kvstore"]["path"]
    if i % 2:
      bucket = {"driver": "gcs", "bucket": "t5x-dummy-bucket"}
      spec["kvstore"] = {**bucket, "path": path}
    else:
      spec["kvstore"] = {"driver": "gfile"}
      spec["path"] = path.rstrip("/")
    # Both are of the machine that wrote it; the file's own count.
    del spec["metadata"]["chunks"], spec["metadata"]["compressor"]
  save(folder, tree)
  assert_same(values(folder), wanted)


def test_arrays_in_the_msgpack_file_and_nodes_that_hold_nothing(copied):
  folder = copied()
  wanted, tree = values(folder), restore(folder)
  norm_of(tree)["scale"] = wanted[NAME]
  shutil.rmtree(folder / FOLDER)
  state = tree["optimizer"]["state"]
  state["param_states"]["encoder"]["encoder_norm"]["scale"]["v"] = None
  tree["optimizer"]["flax_mutables"] = {}
  save(folder, tree)
  del wanted["state/param_states/encoder/encoder_norm/scale/v"]
  assert_same(values(folder), wanted)


@pytest.mark.parametrize(
  ("layout", "below"), [("legacy", ""), ("legacy", "state"), ("orbax", "")]
)
def test_generation_of_placeholders(t5x_checkpoint, tmp_path, layout, below):
  """Beside folders of zarr, or in an OCDBT store."""
  saved = t5x_checkpoint("t5_1_1_tiny", layout, 10)
  tree = restore(t5x_checkpoint("t5_1_1_tiny", "legacy", 10))
  folder = tmp_path / "checkpoint_10"
  arrays = saved / "state" if layout == "orbax" else saved
  shutil.copytree(arrays, folder / below)
  (folder / below / "_METADATA").unlink(missing_ok=True)
  save(folder / below, placeholders(tree["optimizer"]))
  assert_same(values(folder), values(saved))
  assert read(folder)[1] == "msgpack and zarr (an early Orbax generation)"


@pytest.mark.parametrize("in_msgpack", [False, True])
def test_version_2_kept_bfloat16_as_uint16(copied, in_msgpack):
  folder = copied()
  array = values(folder)[NAME].astype(ml_dtypes.bfloat16)
  bits, tree = array.view(np.uint16), restore(folder)
  tree["version"] = 2
  if in_msgpack:
    norm_of(tree)["scale"] = bits
  else:
    norm_of(tree)["scale"]["dtype"] = "uint16"
    about = {"dtype": "<u2", "compressor": None}
    tiny_models.rewrite_json(folder / FOLDER / ".zarray", **about)
    (folder / FOLDER / "0").write_bytes(bits.astype("<u2").tobytes())
  save(folder, tree)
  arrays, layout = read(folder)
  assert layout == "msgpack and zarr (version 2)"
  assert arrays[NAME].dtype == "bfloat16"
  np.testing.assert_array_equal(arrays[NAME].read(), array)


def _bytes(change):
  def damage(folder):
    file = folder / "checkpoint"
    file.write_bytes(change(file.read_bytes()))

  return damage


def _tree(change):
  def damage(folder):
    tree = restore(folder)
    change(tree)
    save(folder, tree)

  return damage


def _spec(change):
  return _tree(lambda tree: change(norm_of(tree)["scale"]))


def _twice(tree):
  """Keys with a slash: the later array would take the place of the first."""
  scale = np.ones(32, np.float32)
  tree["optimizer"]["target"]["encoder"]["encoder_norm/scale"] = scale


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (_bytes(lambda b: b""), "checkpoint cannot be read"),
    (_bytes(lambda b: b[: len(b) // 2]), "checkpoint cannot be read"),
    (_bytes(lambda b: b"\xc1" + b), "checkpoint cannot be read"),
    (_bytes(lambda b: b"\x80\x04\x95cposix\nsystem\n."), "cannot be read"),
    (_bytes(lambda b: b"\x93\x01\x02\x03"), "it holds list, no tree"),
    (
      lambda f: save(f, {"version": 3, "weights": np.ones(2)}),
      "no parameters: there is no 'target'",
    ),
    (
      lambda f: save(f, {"version": 3, "optimizer": {"target": 1}}),
      "no parameters: there is no 'target'",
    ),
    (
      lambda f: save(f, {"step": 1, "params": {"a": np.ones(2)}}),
      "of version 0, with step, params; expected .* version 2 or 3",
    ),
    (_tree(_twice), f"checkpoint has {NAME} twice; give"),
    (_tree(lambda t: t.update(version=1)), "is of version 1, with"),
    (_tree(lambda t: t.update(version=4)), "is of version 4, with"),
    (
      _spec(lambda spec: spec["kvstore"].pop("path")),
      f"entry of {NAME} in .* cannot be read",
    ),
    (
      _spec(lambda spec: spec["metadata"].update(shape=[31])),
      r"is float32 \(32,\), but .* says float32 \(31,\)",
    ),
    (
      _spec(lambda spec: spec.update(dtype="bfloat16")),
      r"is float32 \(32,\), but .* says bfloat16 \(32,\)",
    ),
    (lambda f: (f / FOLDER / "0").unlink(), r"chunk \{0\} .* is missing"),
    (lambda f: shutil.rmtree(f / FOLDER), r"scale/\.zarray.* does not exi"),
  ],
)
def test_damage_is_refused_in_one_line(copied, damage, message):
  folder = copied()
  damage(folder)
  assert_refused(folder, message)


def _metadata(change):
  def damage(state):
    tree = tiny_models.read_json(state / "_METADATA")
    change(tree["tree_metadata"])
    tiny_models.rewrite_json(state / "_METADATA", **tree)

  return damage


def _one_more(entries):
  keys = [{"key": "target", "key_type": 2}, {"key": "more", "key_type": 2}]
  step = entries["('state', 'step')"]
  entries["('target', 'more')"] = {**step, "key_metadata": keys}


def _step_again(entries):
  keys = [{"key": "state/step", "key_type": 2}]
  step = entries["('state', 'step')"]
  entries["('state/step',)"] = {**step, "key_metadata": keys}


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda s: (s / "_METADATA").write_text("{"), "_METADATA cannot be read"),
    (lambda s: (s / "_METADATA").write_text("{}"), "_METADATA cannot be read"),
    (_metadata(lambda e: e.update(x={})), "_METADATA cannot be read"),
    (_metadata(_step_again), "_METADATA has state/step twice; give"),
    (_metadata(_one_more), r"target\.more/\.zarray.* does not ex"),
    (lambda s: (s / "manifest.ocdbt").unlink(), r"/\.zarray.* does not ex"),
    (lambda s: (s / "manifest.ocdbt").write_bytes(b"x"), "cannot be read"),
    (lambda s: shutil.rmtree(s / "d"), "cannot be read"),
    (lambda s: shutil.rmtree(s / "ocdbt.process_0" / "d"), "cannot be read"),
  ],
)
def test_damaged_orbax_is_refused_in_one_line(copied, damage, message):
  folder = copied(layout="orbax") / "state"
  damage(folder)
  assert_refused(folder, message)


def assert_refused(folder, message):
  with pytest.raises(UserError, match=message) as error:
    values(folder)
  assert "\n" not in str(error.value)
  assert str(folder) in str(error.value)
