"""Ten steps of Adafactor against T5X's trainer (golden/t5x)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import trees
from gkd.losses.objective import CrossEntropy
from gkd.models import t5
from gkd.training import state as states
from gkd.training.optimizer import Optimizer
from gkd.training.step import Update
from gkd.training.step import update_step
from gkd.types import Batch
from tests.golden_t5x import MODELS
from tests.golden_t5x import SIZE
from tests.golden_t5x import checkpoint_target
from tests.golden_t5x import load


def train(golden, name, **options):
  """Losses of ten steps and the parameters after them, by T5X's names."""
  config = t5.T5Config(**SIZE, **MODELS[name][0], dropout_rate=0.0)
  student = t5.encoder_decoder(config)
  arrays = load(golden / "t5x" / "batch.npz")
  rows = len(arrays["encoder_input_tokens"])
  batch = Batch(
    inputs=arrays["encoder_input_tokens"],
    targets=arrays["decoder_target_tokens"],
    weights=np.float32(arrays["decoder_loss_weights"]),
    rows=np.arange(rows, dtype=np.int32),
    source=np.zeros(rows, np.int32),
  )
  plan = Update(
    student=student,
    teacher=None,
    objective=CrossEntropy(z_loss=1e-4),
    optimizer=Optimizer(
      name="adafactor", learning_rate=1e-3, total_steps=10, **options
    ),
    reduction="sum",
  )
  params = trees.unflatten(load(golden / "t5x" / name / "params_start.npz"))
  params = jax.tree.map(jnp.asarray, params)
  state = states.create(params, plan.optimizer.transformation())
  losses = []
  for _ in range(10):
    state, metrics = update_step(plan, state, None, batch, np.int32(0))
    losses.append(metrics["loss"].compute())
  return losses, trees.flatten(jax.device_get(state.params))


def recorded(golden, name):
  return json.loads((golden / "t5x" / "meta.json").read_text())["models"][name]


def assert_losses(losses, lines):
  expected = [line["loss"] for line in lines]
  assert expected[0] > 1.1 * expected[-1]  # ten steps move the loss
  np.testing.assert_allclose(losses, expected, rtol=3e-5)


@pytest.mark.parametrize("name", MODELS)
def test_ten_steps_of_adafactor_equal_t5x(golden, name):
  losses, params = train(golden, name)
  assert_losses(losses, recorded(golden, name)["losses_0_10"])
  path = golden / "t5x" / name / "legacy_checkpoint_10.tar.gz"
  expected = checkpoint_target(path)
  assert params.keys() == expected.keys()
  for leaf, array in expected.items():
    np.testing.assert_allclose(
      params[leaf], array, rtol=2**-23, atol=5e-7, err_msg=leaf
    )


def test_ten_steps_of_factored_adafactor_equal_t5x(golden):
  name = "t5_1_1_tiny"
  losses, params = train(golden, name, min_dim_size_to_factor=16)
  known = recorded(golden, name)
  assert_losses(losses, known["factored16_losses_0_10"])
  for leaf, (total, norm) in known["factored16_end10_stats"].items():
    array = np.float64(params[leaf])
    # 5e-7 an entry, so that many times in a sum.
    np.testing.assert_allclose(array.sum(), total, atol=5e-7 * array.size)
    np.testing.assert_allclose(
      np.sqrt(np.sum(array**2)), norm, atol=5e-7 * np.sqrt(array.size)
    )
