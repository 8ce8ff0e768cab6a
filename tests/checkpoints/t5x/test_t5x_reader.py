"""T5X's checkpoints as models: parameters, slots, step and logits as T5X's."""

import hashlib
import json
import re
import shutil

from flax import serialization
import jax
import ml_dtypes
import numpy as np
import pytest

from gkd import trees
from gkd.checkpoints import conversion_plan
from gkd.checkpoints import source
from gkd.checkpoints.t5x import t5x_folders
from gkd.checkpoints.t5x import t5x_index
from gkd.checkpoints.t5x import t5x_reader
from gkd.models import t5
from gkd.types import UserError
from tests.golden_t5x import GATED
from tests.golden_t5x import RELU
from tests.golden_t5x import SIZE
from tests.golden_t5x import load

# Model, layout, step, what T5X's own README says of the model, and the entry of
# `golden/t5x/meta.json` with the hash of the parameters.
CHECKPOINTS = [
  ("t5_1_1_tiny", "legacy", 0, GATED, "start_sha256"),
  ("t5_1_1_tiny", "legacy", 10, GATED, "end10_sha256"),
  ("t5_1_1_tiny", "orbax", 10, GATED, "end10_sha256"),
  ("t5_1_0_tiny", "legacy", 0, RELU, "start_sha256"),
  ("t5_1_0_tiny", "legacy", 10, RELU, "end10_sha256"),
  ("t5_1_1_scan_tiny", "legacy", 0, {**GATED, "bias_per_layer": True}, None),
]


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


@pytest.mark.parametrize(
  ("model", "layout", "step", "options", "key"), CHECKPOINTS
)
def test_config_step_and_parameters_are_those_of_t5x(
  t5x_checkpoint, meta, model, layout, step, options, key
):
  path = t5x_checkpoint(model, layout, step)
  found = t5x_reader.open_checkpoint(path, {})
  assert found.config == t5.T5Config(**SIZE, **options)
  assert (found.path, found.format, found.step) == (path, "t5x", step)
  assert list(found.leaves) == sorted(found.leaves)
  stacked = "layers stacked" in found.layout
  assert stacked == found.config.bias_per_layer
  assert ("Orbax" in found.layout) == (layout == "orbax")
  if key:
    assert sha256(params_of(found)) == meta[model][key]
    for leaf in found.leaves.values():
      array = leaf.read()
      assert (leaf.shape, leaf.dtype) == (array.shape, array.dtype.name)


def test_layers_are_taken_out_of_the_stack(golden, t5x_checkpoint, meta):
  """Stacked arrays have the hash of T5X, the model of the layers its logits.

  Of models that are not stacked see tests/models/test_t5_golden.py.
  """
  path = t5x_checkpoint("t5_1_1_scan_tiny", "legacy", 0)
  arrays, _ = t5x_index.read(t5x_folders.find(path))
  stacked = {
    name.removeprefix("target/"): array.read()
    for name, array in arrays.items()
    if name.startswith("target/")
  }
  assert sha256(stacked) == meta["t5_1_1_scan_tiny"]["start_sha256"]
  found = t5x_reader.open_checkpoint(path, {})
  batch = load(golden / "t5x" / "batch.npz")
  want = load(golden / "t5x" / "t5_1_1_scan_tiny" / "forward_start.npz")
  counts = batch["decoder_loss_weights"] == 1
  got = jax.jit(t5.encoder_decoder(found.config).logits)(
    trees.unflatten(params_of(found)),
    batch["encoder_input_tokens"],
    batch["decoder_target_tokens"],
  )
  np.testing.assert_allclose(
    np.asarray(got)[counts], want["logits"][counts], atol=1e-5
  )


def test_newest_of_a_run_is_said(t5x_checkpoint):
  run = t5x_checkpoint("t5_1_0_tiny", "legacy", 0).parent
  newest = t5x_checkpoint("t5_1_0_tiny", "legacy", 10)
  found = t5x_reader.open_checkpoint(f"{run}/", {})
  assert (found.path, found.step) == (newest, 10)
  assert found.assumed[0].startswith("checkpoint: checkpoint_10, the newest")


def test_given_fields_fill_in_or_contradict(t5x_checkpoint):
  path = t5x_checkpoint("t5_1_1_tiny", "legacy", 10)
  given = {"mlp_activations": ("silu", "linear"), "vocabulary_size": 100}
  given |= {"relative_max_distance": 64, "layer_norm_epsilon": 1e-5}
  found = t5x_reader.open_checkpoint(path, given)
  assert found.config.mlp_activations == ("silu", "linear")
  assert found.config.vocabulary_size == 100
  assert found.assumed == ()
  with pytest.raises(UserError, match=f"^{path}: num_heads=4 was given"):
    t5x_reader.open_checkpoint(path, {"num_heads": 4})


@pytest.fixture
def changed(t5x_checkpoint, tmp_path):
  """`changed(change)`: a copy whose msgpack tree `change` has edited."""

  def copied(change, model="t5_1_1_tiny", step=10):
    folder = tmp_path / f"checkpoint_{step}"
    shutil.copytree(t5x_checkpoint(model, "legacy", step), folder)
    file = folder / "checkpoint"
    tree = serialization.msgpack_restore(file.read_bytes())
    change(tree["optimizer"])
    file.write_bytes(serialization.msgpack_serialize(tree, in_place=True))
    return folder

  return copied


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
  path = changed(lambda tree: tree["state"].update(step=value))
  found = t5x_reader.open_checkpoint(path, {})
  assert found.step == step
  said = [text for text in found.assumed if text.startswith("step")]
  rounded = "step: 1000 was stored as bfloat16, which rounds it"
  assert said == ([rounded] if step == 1000 else [])


@pytest.mark.parametrize(
  "value", [np.float32(1.5), np.float32("nan"), np.int32(-1), np.zeros(2)]
)
def test_step_that_is_none_is_refused(changed, value):
  path = changed(lambda tree: tree["state"].update(step=value))
  with pytest.raises(UserError, match=r"state/step in .*one whole number"):
    t5x_reader.open_checkpoint(path, {})


def test_without_optimizer_or_state(changed):
  path = changed(lambda tree: tree["state"].pop("param_states"))
  found = t5x_reader.open_checkpoint(path, {})
  assert (found.slots, found.step, len(found.assumed)) == ({}, 10, 4)
  shutil.rmtree(path)
  path = changed(lambda tree: tree.pop("state"))
  found = t5x_reader.open_checkpoint(path, {})
  assert (found.slots, found.step, len(found.assumed)) == ({}, None, 4)


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
  found = t5x_reader.open_checkpoint(path, {})
  assert found.slots == {}
  message = f"optimizer: left out, because {reason}"
  assert re.fullmatch(message, found.assumed[-1])
  with pytest.raises(UserError, match=f"asked for, .*{reason}"):
    conversion_plan.plan(path, to="gkd", slots=True)


def test_bfloat16_slots_become_float32(changed):
  found = t5x_reader.open_checkpoint(changed(_slot(ml_dtypes.bfloat16)), {})
  leaf = found.slots["v/decoder/decoder_norm/scale"]
  assert leaf.dtype == leaf.read().dtype == "float32"
  wanted = np.linspace(0, 1, 32).astype(ml_dtypes.bfloat16)
  np.testing.assert_array_equal(leaf.read(), wanted.astype(np.float32))


def _scale(dtype):
  def change(tree):
    scale = {"scale": np.arange(32).astype(dtype)}
    tree["target"]["encoder"]["encoder_norm"] = scale

  return change


def test_bfloat16_stays_bfloat16(changed):
  found = t5x_reader.open_checkpoint(changed(_scale(ml_dtypes.bfloat16)), {})
  leaf = found.leaves["encoder/encoder_norm/scale"]
  assert (leaf.dtype, leaf.read().dtype.name) == ("bfloat16", "bfloat16")
  assert leaf.size_bytes == 64
  np.testing.assert_array_equal(leaf.read(), np.arange(32))


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
    (_mutables, "more than the parameters, .*: flax_mutables/router/counts;"),
    (_no_encoder, "the model is decoder-only"),
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
      r"1 stacked .* has 2: encoder/encoder/attention/query/kernel"
      r" \(32, 2, 4, 8\) has 4; save",
    ),
  ],
)
def test_stacked_layers_that_contradict_are_listed(changed, change, message):
  path = changed(change, "t5_1_1_scan_tiny", 0)
  with pytest.raises(UserError, match=message):
    t5x_reader.open_checkpoint(path, {})
