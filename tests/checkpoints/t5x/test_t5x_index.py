"""Every generation of T5X's index names the same arrays; damage is noticed."""

import json
import shutil

from flax import serialization
import ml_dtypes
import numpy as np
import pytest

from gkd.checkpoints.t5x import t5x_folders
from gkd.checkpoints.t5x import t5x_index
from gkd.types import UserError

NAME = "target/encoder/encoder_norm/scale"
FOLDER = "target.encoder.encoder_norm.scale"


def read(path):
  return t5x_index.read(t5x_folders.find(path))


def values(path) -> dict[str, np.ndarray]:
  return {name: array.read() for name, array in read(path)[0].items()}


def assert_same(got, want):
  assert got.keys() == want.keys()
  for name, array in want.items():
    assert got[name].dtype == array.dtype, name
    np.testing.assert_array_equal(got[name], array, err_msg=name)


@pytest.fixture
def legacy(t5x_checkpoint, tmp_path):
  """A copy to change: the folder, its tree, and `save(tree)`."""
  folder = tmp_path / "checkpoint_10"
  shutil.copytree(t5x_checkpoint("t5_1_1_tiny", "legacy", 10), folder)
  return folder


def restore(folder):
  return serialization.msgpack_restore((folder / "checkpoint").read_bytes())


def save(folder, tree):
  packed = serialization.msgpack_serialize(tree, in_place=True)
  (folder / "checkpoint").write_bytes(packed)


def specs(tree):
  """Every array spec of a tree, to change in place."""
  for value in tree.values():
    if isinstance(value, dict) and "kvstore" in value:
      yield value
    elif isinstance(value, dict):
      yield from specs(value)


def placeholders(tree, prefix=""):
  """The tree of the generations between: names of arrays instead of specs."""
  return {
    key: f"PLACEHOLDER://{prefix}{key}"
    if isinstance(value, dict) and "kvstore" in value
    else placeholders(value, f"{prefix}{key}.")
    if isinstance(value, dict)
    else value
    for key, value in tree.items()
  }


def test_both_layouts_hold_the_same_arrays(t5x_checkpoint):
  legacy = t5x_checkpoint("t5_1_1_tiny", "legacy", 10)
  orbax = t5x_checkpoint("t5_1_1_tiny", "orbax", 10)
  assert_same(values(orbax), values(legacy))
  assert read(legacy)[1] == "msgpack and zarr (version 3)"
  assert read(orbax)[1] == "Orbax (what T5X writes today)"


def test_specs_of_other_drivers_and_of_old_tensorstore(legacy):
  want = values(legacy)
  tree = restore(legacy)
  for i, spec in enumerate(specs(tree)):
    path = spec["kvstore"]["path"]
    if i % 2:
      spec["kvstore"] = {
        "driver": "gcs",
        "bucket": "t5x-dummy-bucket",
        "path": path,
      }
    else:
      spec["kvstore"] = {"driver": "gfile"}
      spec["path"] = path.rstrip("/")
    # Both are of the machine that wrote it; the file's own count.
    del spec["metadata"]["chunks"], spec["metadata"]["compressor"]
  save(legacy, tree)
  assert_same(values(legacy), want)


def test_arrays_in_the_msgpack_file_and_nodes_that_hold_nothing(legacy):
  want = values(legacy)
  tree = restore(legacy)
  tree["optimizer"]["target"]["encoder"]["encoder_norm"]["scale"] = want[NAME]
  shutil.rmtree(legacy / FOLDER)
  state = tree["optimizer"]["state"]
  state["param_states"]["encoder"]["encoder_norm"]["scale"]["v"] = None
  tree["optimizer"]["flax_mutables"] = {}
  save(legacy, tree)
  del want["state/param_states/encoder/encoder_norm/scale/v"]
  assert_same(values(legacy), want)


@pytest.mark.parametrize(
  ("layout", "inside"), [("legacy", ""), ("legacy", "state"), ("orbax", "")]
)
def test_generation_of_placeholders(
  t5x_checkpoint, legacy, tmp_path, layout, inside
):
  """Beside folders of zarr, or in an OCDBT store."""
  saved = t5x_checkpoint("t5_1_1_tiny", layout, 10)
  arrays = saved / "state" if layout == "orbax" else saved
  folder = tmp_path / "later" / "checkpoint_10"
  shutil.copytree(arrays, folder / inside)
  (folder / inside / "_METADATA").unlink(missing_ok=True)
  save(folder / inside, placeholders(restore(legacy)["optimizer"]))
  assert_same(values(folder), values(saved))
  assert read(folder)[1] == "msgpack and zarr (an early Orbax generation)"


@pytest.mark.parametrize("in_msgpack", [False, True])
def test_version_2_kept_bfloat16_as_uint16(legacy, in_msgpack):
  array = values(legacy)[NAME].astype(ml_dtypes.bfloat16)
  bits = array.view(np.uint16)
  tree = restore(legacy)
  tree["version"] = 2
  norm = tree["optimizer"]["target"]["encoder"]["encoder_norm"]
  if in_msgpack:
    norm["scale"] = bits
  else:
    norm["scale"]["dtype"] = "uint16"
    about = json.loads((legacy / FOLDER / ".zarray").read_text())
    about |= {"dtype": "<u2", "compressor": None}
    (legacy / FOLDER / ".zarray").write_text(json.dumps(about))
    (legacy / FOLDER / "0").write_bytes(bits.astype("<u2").tobytes())
  save(legacy, tree)
  arrays, layout = read(legacy)
  assert layout == "msgpack and zarr (version 2)"
  assert arrays[NAME].dtype == "bfloat16"
  np.testing.assert_array_equal(arrays[NAME].read(), array)


def _change(change):
  def damage(folder):
    tree = restore(folder)
    change(tree)
    save(folder, tree)

  return damage


def _twice(tree):
  """Keys with a slash: the later array would take the place of the first."""
  scale = np.ones(32, np.float32)
  tree["optimizer"]["target"]["encoder"]["encoder_norm/scale"] = scale


def _spec(change):
  scale = ("encoder", "encoder_norm", "scale")

  def changed(tree):
    spec = tree["optimizer"]["target"]
    for key in scale:
      spec = spec[key]
    change(spec)

  return _change(changed)


def _bytes(change):
  def damage(folder):
    file = folder / "checkpoint"
    file.write_bytes(change(file.read_bytes()))

  return damage


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
    (_change(_twice), f"checkpoint has {NAME} twice; give"),
    (_change(lambda t: t.update(version=1)), "is of version 1, with"),
    (_change(lambda t: t.update(version=4)), "is of version 4, with"),
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
def test_damage_is_refused_in_one_line(legacy, damage, message):
  damage(legacy)
  with pytest.raises(UserError, match=message) as error:
    values(legacy)
  assert "\n" not in str(error.value)
  assert str(legacy) in str(error.value)


def _metadata(change):
  def damage(state):
    tree = json.loads((state / "_METADATA").read_text())
    change(tree)
    (state / "_METADATA").write_text(json.dumps(tree))

  return damage


def _extra(tree):
  entry = tree["tree_metadata"]["('state', 'step')"]
  keys = [{"key": "target", "key_type": 2}, {"key": "more", "key_type": 2}]
  entry = {**entry, "key_metadata": keys}
  tree["tree_metadata"]["('target', 'more')"] = entry


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda s: (s / "_METADATA").write_text("{"), "_METADATA cannot be read"),
    (_metadata(lambda t: t.clear()), "_METADATA cannot be read"),
    (_metadata(lambda t: t.update(use_zarr3=True)), "zarr format 3"),
    (_metadata(_extra), r"target\.more/\.zarray.* does not ex"),
    (lambda s: (s / "manifest.ocdbt").unlink(), r"/\.zarray.* does not ex"),
    (lambda s: (s / "manifest.ocdbt").write_bytes(b"x"), "cannot be read"),
    (lambda s: shutil.rmtree(s / "d"), "cannot be read"),
    (lambda s: shutil.rmtree(s / "ocdbt.process_0" / "d"), "cannot be read"),
  ],
)
def test_damaged_orbax_is_refused_in_one_line(
  t5x_checkpoint, tmp_path, damage, message
):
  folder = tmp_path / "checkpoint_10"
  shutil.copytree(t5x_checkpoint("t5_1_1_tiny", "orbax", 10), folder)
  damage(folder / "state")
  with pytest.raises(UserError, match=message) as error:
    values(folder / "state")
  assert "\n" not in str(error.value)
  assert str(folder / "state") in str(error.value)
