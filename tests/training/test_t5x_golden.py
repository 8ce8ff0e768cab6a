"""Steps of Adafactor against T5X's trainer (golden/t5x), begun and gone on."""

import json
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import partitioning
from gkd import trees
from gkd.checkpoints import source
from gkd.losses.objective import CrossEntropy
from gkd.models import t5
from gkd.training import state as states
from gkd.training.optimizer import Adafactor
from gkd.training.optimizer import starting_at
from gkd.training.step import TrainStep
from gkd.training.step import update_step
from tests import tiny
from tests.golden_t5x import MODELS
from tests.golden_t5x import SIZE
from tests.golden_t5x import batch_of
from tests.golden_t5x import checkpoint_target
from tests.golden_t5x import load


def optimizer(**options) -> Adafactor:
  """That of the fixtures: T5X's constant rate."""
  return tiny.adafactor(
    learning_rate=1e-3, factors="constant", total_steps=10, **options
  )


def train(golden, name, rule, params, slots=None, steps=10):
  """Losses, and parameters and slots after the steps by T5X's names."""
  config = t5.T5Config(**SIZE, **MODELS[name][0], dropout_rate=0.0)
  student = t5.encoder_decoder(config)
  batch = batch_of(load(golden / "t5x" / "batch.npz"))
  plan = TrainStep(
    student=student,
    frozen={},
    objective=CrossEntropy(z_loss=1e-4),
    optimizer=rule,
    reduction="sum",
  )
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  params = jax.tree.map(jnp.asarray, trees.unflatten(params))
  state = states.initial_state(student, params, rule, mesh, slots)
  losses = []
  for _ in range(steps):
    state, metrics = update_step(plan, state, {}, batch, np.int32(0))
    losses.append(metrics["loss"].compute())
  after = trees.flatten(jax.device_get(state.params))
  return losses, after, tiny.adafactor_slots(state.opt_state)


def start(golden, name):
  return load(golden / "t5x" / name / "params_start.npz")


def recorded(golden, name):
  return json.loads((golden / "t5x" / "meta.json").read_text())["models"][name]


def opened(golden, folder, name, layout):
  """A checkpoint of step 10: parameters, slots and step."""
  archive = golden / "t5x" / name / f"{layout}_checkpoint_10.tar.gz"
  with tarfile.open(archive) as tar:
    tar.extractall(folder, filter="data")
  checkpoint = source.open_checkpoint(folder / "checkpoint_10")
  params, slots = (
    {path: leaf.read() for path, leaf in leaves.items()}
    for leaves in (checkpoint.leaves, checkpoint.slots)
  )
  return params, slots, checkpoint.step


def assert_losses(losses, lines):
  expected = [line["loss"] for line in lines]
  assert expected[0] > 1.05 * expected[-1]  # ten steps move the loss
  np.testing.assert_allclose(losses, expected, rtol=3e-5)


def assert_params(params, stats):
  """Sum and Euclidean norm of each parameter."""
  assert params.keys() == stats.keys()
  for leaf, (total, norm) in stats.items():
    array = np.float64(params[leaf])
    # 5e-7 an entry, so that many times in a sum.
    np.testing.assert_allclose(array.sum(), total, atol=5e-7 * array.size)
    np.testing.assert_allclose(
      np.sqrt(np.sum(array**2)), norm, atol=5e-7 * np.sqrt(array.size)
    )


@pytest.mark.parametrize("name", MODELS)
def test_ten_steps_of_adafactor_equal_t5x(golden, name):
  losses, params, _ = train(golden, name, optimizer(), start(golden, name))
  assert_losses(losses, recorded(golden, name)["losses_0_10"])
  path = golden / "t5x" / name / "legacy_checkpoint_10.tar.gz"
  expected = checkpoint_target(path)
  assert params.keys() == expected.keys()
  for leaf, array in expected.items():
    np.testing.assert_allclose(
      params[leaf], array, rtol=2**-23, atol=1e-6, err_msg=leaf
    )


@pytest.mark.parametrize("name", MODELS)
def test_ten_steps_of_factored_adafactor_equal_t5x(golden, name):
  rule = optimizer(min_dim_size_to_factor=16)
  losses, params, _ = train(golden, name, rule, start(golden, name))
  known = recorded(golden, name)
  assert_losses(losses, known["factored16_losses_0_10"])
  assert_params(params, known["factored16_end10_stats"])


@pytest.mark.parametrize(
  ("name", "layout"),
  [
    ("t5_1_1_tiny", "legacy"),
    ("t5_1_1_tiny", "orbax"),
    ("t5_1_0_tiny", "legacy"),
  ],
)
def test_a_t5x_run_goes_on_as_in_t5x(golden, tmp_path, name, layout):
  params, slots, step = opened(golden, tmp_path, name, layout)
  rule = starting_at(optimizer(restore=True), step)
  losses, params, _ = train(golden, name, rule, params, slots)
  known = recorded(golden, name)
  assert_losses(losses, known["losses_10_20"])
  assert_params(params, known["end20_stats"])


def test_slots_and_step_are_what_makes_it_go_on(golden, tmp_path):
  name = "t5_1_1_tiny"
  params, slots, step = opened(golden, tmp_path, name, "legacy")
  expected = [x["loss"] for x in recorded(golden, name)["losses_10_20"]]
  empty = {path: np.zeros_like(slot) for path, slot in slots.items()}
  for rule, given in (
    (starting_at(optimizer(restore=True), step), empty),
    (starting_at(optimizer(restore=True), 0), slots),
  ):
    losses = train(golden, name, rule, params, given)[0]
    assert np.max(np.abs(np.divide(losses, expected) - 1)) > 3e-4


@pytest.mark.parametrize("name", MODELS)
def test_a_run_of_ours_goes_on_through_t5x_slots(golden, name):
  _, params, slots = train(golden, name, optimizer(), start(golden, name))
  rule = starting_at(optimizer(restore=True), 10)
  losses, params, _ = train(golden, name, rule, params, slots)
  known = recorded(golden, name)
  assert_losses(losses, known["losses_10_20"])
  assert_params(params, known["end20_stats"])


def test_a_factored_run_goes_on_bit_identical_through_t5x_slots(golden):
  """T5X kept no step 20 of it: ten steps and ten more are twenty."""
  name, factored = "t5_1_1_tiny", {"min_dim_size_to_factor": 16}
  first = start(golden, name)
  whole = train(golden, name, optimizer(**factored), first, steps=20)
  half = train(golden, name, optimizer(**factored), first)
  rule = starting_at(optimizer(**factored, restore=True), 10)
  rest = train(golden, name, rule, *half[1:])
  assert half[0] + rest[0] == whole[0]
  for ours, expected in zip(rest[1:], whole[1:], strict=True):
    assert ours.keys() == expected.keys()
    for path, array in expected.items():
      np.testing.assert_array_equal(ours[path], array, err_msg=path)
  assert whole[2]["v_row/token_embedder/embedding"].shape == (32,)
