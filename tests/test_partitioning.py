"""Meshes and shardings, on four virtual CPU devices."""

import dataclasses

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from gkd import partitioning
from gkd import trees
from gkd.types import Batch
from gkd.types import UserError
from tests import second_family
from tests import tiny

MODEL = tiny.STUDENT
ROWS = MODEL.config.vocab_size


@pytest.fixture(scope="module")
def params():
  return tiny.parameters(MODEL, 0)


def make_batch(num_rows: int = 4) -> Batch:
  random = np.random.RandomState(0)
  inputs = random.randint(2, ROWS, (num_rows, 6), dtype=np.int32)
  targets = random.randint(2, ROWS, (num_rows, 5), dtype=np.int32)
  inputs[1:, 4:] = 0
  targets[0, 3:] = 0
  return Batch(
    inputs=inputs,
    input_mask=inputs > 0,
    targets=targets,
    weights=(targets > 0).astype(np.float32),
    rows=np.arange(num_rows, dtype=np.int32),
    source=np.zeros(num_rows, np.int32),
  )


def test_mesh_axes_are_automatic_and_data_takes_what_is_left():
  mesh = partitioning.make_mesh(model=2)
  assert mesh.axis_names == ("data", "fsdp", "model")
  assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "model": 2}
  assert set(mesh.axis_types) == {AxisType.Auto}


def test_specs_are_those_of_t5x(params):
  mesh = partitioning.make_mesh(model=2)
  named = {
    name: sharding.spec
    for name, sharding in trees.flatten(
      partitioning.shardings(MODEL.axes(params), mesh)
    ).items()
  }
  layer = "decoder/layers_0/"
  assert named["token_embedder/embedding"] == P("model", "fsdp")
  assert named["decoder/logits_dense/kernel"] == P("fsdp", "model")
  assert named[layer + "self_attention/query/kernel"] == P("fsdp", "model")
  assert named[layer + "self_attention/out/kernel"] == P("model", "fsdp")
  assert named[layer + "mlp/wi_0/kernel"] == P("fsdp", "model")
  assert named[layer + "mlp/wo/kernel"] == P("model", "fsdp")
  assert named[layer + "pre_mlp_layer_norm/scale"] == P("fsdp")
  assert named["encoder/relpos_bias/rel_embedding"] == P("model", None)


def test_a_mesh_axis_is_used_once_per_array():
  mesh = partitioning.make_mesh(model=2)
  tree = partitioning.shardings({"a": ("vocab", "mlp"), "b": ()}, mesh)
  assert tree["a"].spec == P("model", None)
  assert tree["b"].spec == P()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"head": ("embed", "vocabs")}, "names 'vocabs' for head; expected .*mlp"),
    ({"head": None}, "has no axes for head; give"),
    ({"tail": ()}, "has axes without a parameter: tail; give"),
  ],
)
def test_axes_that_do_not_fit_the_parameters_are_refused(changes, message):
  model = second_family.model()
  axes = model.axes({}) | changes
  axes = {name: names for name, names in axes.items() if names is not None}
  model = dataclasses.replace(model, axes=lambda params: axes)
  mesh = partitioning.make_mesh(model=2)
  with pytest.raises(UserError, match=rf"LanguageModel\.axes {message}"):
    partitioning.parameter_shardings(model, model.abstract_params, mesh)


def test_batch_rows_go_over_the_data_axis():
  mesh = partitioning.make_mesh(model=2)
  batch = partitioning.place(make_batch(), partitioning.batch_sharding(mesh))
  assert batch.inputs.sharding.spec == P(("data", "fsdp"))
  assert batch.inputs.addressable_shards[0].data.shape == (2, 6)
  np.testing.assert_array_equal(batch.inputs, make_batch().inputs)


def test_model_info_is_t5xs_text(params):
  mesh = partitioning.make_mesh(model=2)
  lines = partitioning.model_info(MODEL, mesh).splitlines()
  # log_model_info of t5x/utils.py.
  t5x_format = "Variable %-80s size %-12s shape %-40s partition spec %s"
  assert lines[0] == t5x_format % (
    "decoder/decoder_norm/scale",
    16,
    "(embed=16)",
    ("fsdp",),
  )
  assert lines[-2] == t5x_format % (
    "token_embedder/embedding",
    16 * ROWS,
    f"(vocab={ROWS}, embed=16)",
    ("model", "fsdp"),
  )
  total = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert lines[-1] == f"Total number of parameters: {total}"
  assert len(lines) == len(jax.tree.leaves(params)) + 1


@pytest.mark.parametrize("model", [3, 0, -1, 8])
def test_impossible_meshes_are_refused(model):
  message = "does not divide 4 devices; choose one of 1, 2, 4"
  with pytest.raises(UserError, match=f"MODEL_PARALLELISM {model} {message}"):
    partitioning.make_mesh(model)
  with pytest.raises(UserError, match=r"not divide 1 device; choose one of 1$"):
    partitioning.make_mesh(3, jax.devices()[:1])


def test_rows_that_do_not_divide_are_refused():
  mesh = partitioning.make_mesh()
  with pytest.raises(
    UserError,
    match=r"inputs of shape \(6, 6\): dimension 6 does not divide over 4 "
    "devices of mesh axis 'data/fsdp'",
  ):
    partitioning.place(make_batch(6), partitioning.batch_sharding(mesh))


def test_parameters_that_do_not_divide_are_refused_before_they_exist():
  mesh = partitioning.make_mesh(model=4)
  shapes = jax.eval_shape(MODEL.init, jax.random.key(0))
  tree = partitioning.shardings(MODEL.axes(shapes), mesh)
  with pytest.raises(
    UserError,
    match=r"decoder/relpos_bias/rel_embedding of shape \(2, 32\): dimension 2",
  ):
    partitioning.check_divisible(shapes, tree)


def test_batches_that_do_not_split_over_the_copies_are_refused():
  mesh = partitioning.make_mesh(model=2)
  partitioning.check_division(12, 3, mesh)
  message = r"BATCH_SIZE 8 does not split into 3 micro-batches over 2 copies"
  with pytest.raises(UserError, match=f"{message} .* a multiple of 6$"):
    partitioning.check_division(8, 3, mesh)
  message = r"EVAL_BATCH_SIZE 7 does not split into 2 copies .* multiple of 2$"
  with pytest.raises(UserError, match=message):
    partitioning.check_division(7, 1, mesh, "EVAL_BATCH_SIZE")
  with pytest.raises(UserError, match="BATCH_SIZE 8 does not split into 0"):
    partitioning.check_division(8, 0, mesh)


def test_one_process_reads_the_whole_batch():
  batch = make_batch(8)
  asked = []

  def read(places):
    asked.append(places)
    return batch

  mesh = partitioning.make_mesh()
  sharding = partitioning.batch_sharding(mesh)
  placed = partitioning.place_rows(read, 8, sharding)
  assert asked == [range(8)]
  assert placed.inputs.sharding == sharding
  for left, right in zip(
    jax.tree.leaves(placed), jax.tree.leaves(batch), strict=True
  ):
    np.testing.assert_array_equal(left, right)
