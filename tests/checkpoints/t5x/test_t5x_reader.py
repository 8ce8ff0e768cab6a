"""T5X's checkpoints as models: parameters, slots, step and logits as T5X's."""

import contextlib
import hashlib
import json
import re
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest

from gkd import trees
from gkd.checkpoints import conversion
from gkd.checkpoints import source
from gkd.checkpoints.t5x import t5x_folders
from gkd.checkpoints.t5x import t5x_index
from gkd.checkpoints.t5x import t5x_reader
from gkd.models import t5
from gkd.types import UserError
from tests import golden_t5x
from tests.checkpoints import tiny_models
from tests.golden_t5x import GATED
from tests.golden_t5x import RELU

SCAN = "t5_1_1_scan_tiny"
# Model, layout, step, what T5X's own README says of the model, and the entry of
# `golden/t5x/meta.json` with the hash of the parameters.
CHECKPOINTS = [
  ("t5_1_1_tiny", "legacy", 0, GATED, "start_sha256"),
  ("t5_1_1_tiny", "legacy", 10, GATED, "end10_sha256"),
  ("t5_1_1_tiny", "orbax", 10, GATED, "end10_sha256"),
  ("t5_1_0_tiny", "legacy", 0, RELU, "start_sha256"),
  ("t5_1_0_tiny", "legacy", 10, RELU, "end10_sha256"),
  (SCAN, "legacy", 0, {**GATED, "bias_per_layer": True}, None),
]


def open_(path, **given):
  return t5x_reader.open_checkpoint(path, given)


def params_of(checkpoint) -> dict[str, np.ndarray]:
  return {name: leaf.read() for name, leaf in checkpoint.leaves.items()}


def sha256(params) -> str:
  """As `golden/t5x/meta.json` has it: sorted path, shape, float32 bytes."""
  digest = hashlib.sha256()
  for name, array in sorted(params.items()):
    digest.update(f"{name}{array.shape}".encode())
    digest.update(array.astype(np.float32).tobytes())
  return digest.hexdigest()


@pytest.fixture(scope="module")
def meta(golden):
  return json.loads((golden / "t5x" / "meta.json").read_text())["models"]


@pytest.fixture
def changed(copied):
  """`changed(change)`: a copy whose msgpack tree `change` has edited."""

  def copy(change, model="t5_1_1_tiny", step=10):
    folder = copied(model, step=step)
    tree = golden_t5x.restore(folder)
    change(tree["optimizer"])
    golden_t5x.save(folder, tree)
    return folder

  return copy


@pytest.mark.parametrize(
  ("model", "layout", "step", "options", "key"), CHECKPOINTS
)
def test_config_step_and_parameters_are_those_of_t5x(
  t5x_checkpoint, meta, model, layout, step, options, key
):
  path = t5x_checkpoint(model, layout, step)
  opened = open_(path)
  assert opened.config == t5.T5Config(**golden_t5x.SIZE, **options)
  assert (opened.path, opened.format, opened.step) == (path, "t5x", step)
  assert list(opened.leaves) == sorted(opened.leaves)
  is_stacked = "layers stacked" in opened.layout
  assert is_stacked == opened.config.bias_per_layer
  assert ("Orbax" in opened.layout) == (layout == "orbax")
  if key:
    assert sha256(params_of(opened)) == meta[model][key]
    for leaf in opened.leaves.values():
      array = leaf.read()
      assert (leaf.shape, leaf.dtype) == (array.shape, array.dtype.name)


def test_layers_are_taken_out_of_the_stack(golden, t5x_checkpoint, meta):
  """Stacked arrays have the hash of T5X, the model of the layers its logits.

  Of models that are not stacked see tests/models/test_t5_golden.py.
  """
  path = t5x_checkpoint(SCAN, "legacy", 0)
  arrays, _ = t5x_index.read(t5x_folders.find(path))
  stacked = {
    name.removeprefix("target/"): array.read()
    for name, array in arrays.items()
    if name.startswith("target/")
  }
  assert sha256(stacked) == meta[SCAN]["start_sha256"]
  opened = open_(path)
  batch = golden_t5x.load(golden / "t5x" / "batch.npz")
  wanted = golden_t5x.load(golden / "t5x" / SCAN / "forward_start.npz")
  real = batch["decoder_loss_weights"] == 1
  logits = jax.jit(t5.encoder_decoder(opened.config).logits)(
    trees.unflatten(params_of(opened)),
    batch["encoder_input_tokens"],
    batch["decoder_target_tokens"],
  )
  np.testing.assert_allclose(
    np.asarray(logits)[real], wanted["logits"][real], atol=1e-5
  )


def test_stacks_in_the_msgpack_file_give_the_same_layers(changed):
  """Small arrays are kept there, layer by layer not contiguous."""
  stack = np.arange(64, dtype=np.float32).reshape(32, 2)

  def scale(tree):
    norm = {"scale": stack}
    tree["target"]["encoder"]["encoder"]["pre_mlp_layer_norm"] = norm

  leaves = open_(changed(scale, SCAN, 0)).leaves
  for i in range(2):
    layer = leaves[f"encoder/layers_{i}/pre_mlp_layer_norm/scale"].read()
    np.testing.assert_array_equal(layer, stack[:, i])
    assert layer.flags.c_contiguous


def test_newest_of_a_run_is_said(t5x_checkpoint):
  run = t5x_checkpoint("t5_1_0_tiny", "legacy", 0).parent
  newest = t5x_checkpoint("t5_1_0_tiny", "legacy", 10)
  opened = source.open_checkpoint(f"{run}/")
  assert (opened.path, opened.step) == (newest, 10)
  assert opened.assumed[0].startswith("checkpoint: checkpoint_10, the newest")


def test_a_checkpoint_under_the_name_of_another_step(t5x_checkpoint, tmp_path):
  """Said of one that was given, refused where the name would choose it."""
  renamed = tmp_path / "checkpoint_20"
  shutil.copytree(t5x_checkpoint("t5_1_0_tiny", "legacy", 10), renamed)
  opened = source.open_checkpoint(renamed)
  about = "step: 10 is saved, though the folder is checkpoint_20"
  assert (opened.step, about in opened.assumed) == (10, True)
  for step in (None, 20):
    with pytest.raises(UserError, match=f"{about}; give each checkpoint"):
      source.open_checkpoint(tmp_path, step=step)


def test_given_fields_fill_in_or_contradict(t5x_checkpoint):
  path = t5x_checkpoint("t5_1_1_tiny", "legacy", 10)
  given = {"mlp_activations": ("silu", "linear"), "vocabulary_size": 100}
  given |= {"relative_max_distance": 64, "layer_norm_epsilon": 1e-5}
  opened = open_(path, **given)
  assert opened.config.mlp_activations == ("silu", "linear")
  assert opened.config.vocabulary_size == 100
  assert opened.assumed == ()
  with pytest.raises(UserError, match=f"^{path}: num_heads=4 was given"):
    open_(path, num_heads=4)


@pytest.mark.parametrize(
  ("value", "step"),
  [
    (np.array(1_000_000, np.int32), 1_000_000),
    (np.array(1_000_001, np.float32), 1_000_001),
    (np.array([250], np.float32), 250),
    (np.float32(7), 7),
    (7, 7),
    (np.array(128, ml_dtypes.bfloat16), 128),
    (np.array(1001, ml_dtypes.bfloat16), 1000),
  ],
)
def test_step_of_any_type_and_what_bfloat16_rounds(changed, value, step):
  opened = open_(changed(lambda tree: tree["state"].update(step=value)))
  assert opened.step == step
  remarks = [text for text in opened.assumed if "stored" in text]
  rounded = "step: 1000 was stored as bfloat16, which rounds it"
  assert remarks == ([rounded] if step == 1000 else [])


@pytest.mark.parametrize("part", ["param_states", None])
def test_without_optimizer_or_state(changed, part):
  def drop(tree):
    if part:
      del tree["state"][part]
    else:
      del tree["state"]

  opened = open_(changed(drop))
  assert (opened.slots, len(opened.assumed)) == ({}, 4)
  assert opened.step == (10 if part else None)


def _drop_a_slot(tree):
  tree["state"]["param_states"]["token_embedder"]["embedding"]["m"] = None


def _adam(tree):
  state = {"mu": {"a": np.zeros(2)}, "nu": {"a": np.zeros(2)}}
  tree["state"]["param_states"] = {"0": state, "1": {}}


def _slot(dtype):
  def change(tree):
    slots = tree["state"]["param_states"]["decoder"]["decoder_norm"]["scale"]
    slots["v"] = np.linspace(0, 1, 32).astype(dtype)

  return change


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    (_drop_a_slot, r"it is not Adafactor's for every parameter \(state/.*"),
    (_adam, r"it is not Adafactor's for every parameter \(state/.*"),
    (_slot("float64"), r"slots are .*\(decoder/decoder_norm/scale/v float64\)"),
    (_slot("int32"), r"slots are .*\(decoder/decoder_norm/scale/v int32\)"),
  ],
)
def test_slots_are_adafactors_for_all_or_none(changed, change, reason):
  path = changed(change)
  opened = open_(path)
  assert opened.slots == {}
  message = f"optimizer: left out, because {reason}"
  assert re.fullmatch(message, opened.assumed[-1])
  with pytest.raises(UserError, match=f"asked for, .*{reason}"):
    conversion.plan(path, to="gkd", slots=True)


def _scale(dtype):
  def change(tree):
    scale = {"scale": np.arange(32).astype(dtype)}
    tree["target"]["encoder"]["encoder_norm"] = scale

  return change


def test_bfloat16_stays_bfloat16_and_slots_become_float32(changed):
  def change(tree):
    _scale(ml_dtypes.bfloat16)(tree)
    _slot(ml_dtypes.bfloat16)(tree)

  opened = open_(changed(change))
  leaf = opened.leaves["encoder/encoder_norm/scale"]
  assert leaf.dtype == leaf.read().dtype == "bfloat16"
  assert leaf.size_bytes == 64
  np.testing.assert_array_equal(leaf.read(), np.arange(32))
  slot = opened.slots["v/decoder/decoder_norm/scale"]
  assert slot.dtype == slot.read().dtype == "float32"
  wanted = np.linspace(0, 1, 32).astype(ml_dtypes.bfloat16)
  np.testing.assert_array_equal(slot.read(), wanted.astype(np.float32))


def _step(value):
  return lambda tree: tree["state"].update(step=value)


def _mutables(tree):
  tree["flax_mutables"] = {"router": {"counts": np.ones(3, np.float32)}}


def _no_encoder(tree):
  del tree["target"]["encoder"]


def _another_family(tree):
  tree["target"] = {"conv_0": {"kernel": np.ones((3, 3), np.float32)}}


def _odd_stack(tree):
  tree["target"]["encoder"]["encoder"] = {"router": np.ones((2, 2), "f4")}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (_scale("float16"), "1 of another type: .*norm/scale float16, exp"),
    (_scale("uint16"), "1 of another type: .*norm/scale uint16, expe"),
    (_step(np.float32(1.5)), "state/step is 1.5; expected one whole number"),
    (_step(np.float32("nan")), "state/step is nan; expected one whole number"),
    (_step(np.int32(-1)), "state/step is -1.0; expected one whole number"),
    (_step(np.zeros(2)), r"state/step is \[0.0, 0.0\]; expected one whole"),
    (_mutables, "more than the parameters, .*: flax_mutables/router/counts;"),
    (_no_encoder, "not a T5 encoder–decoder: no layer of the encoder"),
    (_another_family, "not a T5 encoder–decoder: no embedding"),
    (_odd_stack, "router is no parameter of a T5 enc"),
  ],
)
def test_what_is_no_t5_is_refused_by_name(changed, change, message):
  path = changed(change)
  with pytest.raises(UserError, match=message) as error:
    source.open_checkpoint(path)
  assert str(error.value).startswith(str(path))
  assert "\n" not in str(error.value)


def _layer_beside_the_stack(tree):
  kernel = {"kernel": np.full((48, 32), 9, np.float32)}
  tree["target"]["encoder"]["layers_1"] = {"mlp": {"wo": kernel}}


def _other_heads(tree):
  """2 heads of 16, kept as 4 of 8."""
  attention = tree["target"]["encoder"]["encoder"]["attention"]
  attention["query"]["kernel"] = np.ones((32, 2, 4, 8), np.float32)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      _layer_beside_the_stack,
      r"1 parameters are there twice, .*: encoder/layers_1/mlp/wo/kernel; save",
    ),
    (
      _other_heads,
      r"stacked .*: encoder/encoder/attention/query/kernel is \(32, 2, 4, 8\)"
      r" instead of \(32, 2, 2, 16\); save",
    ),
  ],
)
def test_stacked_layers_that_contradict_are_listed(changed, change, message):
  with pytest.raises(UserError, match=message):
    open_(changed(change, SCAN, 0))


def test_a_flipped_bit_of_orbax_shows_in_the_hash_alone(copied):
  """The format has no checksum; a run compares the hash when it goes on."""
  folder = copied(layout="orbax")
  file = max(folder.rglob("d/*"), key=lambda file: file.stat().st_size)
  content, sound = file.read_bytes(), open_(folder).content_sha256
  hashes = set()
  for at in range(0, len(content), len(content) // 20):
    tiny_models.flip_a_bit(file, at)
    with contextlib.suppress(UserError):  # of what is not a number
      hashes.add(open_(folder).content_sha256)
    file.write_bytes(content)
  assert hashes - {sound}
