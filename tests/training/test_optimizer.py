import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gkd.training.optimizer import Optimizer
from gkd.types import UserError


def test_schedule_is_warmup_then_flat_then_linear_cooldown_to_zero():
  optimizer = Optimizer(
    name="adafactor",
    learning_rate=3e-4,
    total_steps=100,
    warmup_steps=10,
    cooldown_steps=25,
  )
  steps = np.arange(101)
  expected = (
    3e-4 * np.minimum(1, steps / 10) * np.clip((100 - steps) / 25, 0, 1)
  )
  actual = [float(optimizer.schedule(step)) for step in steps]
  np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-12)
  assert actual[0] == 0
  assert actual[100] == 0


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"name": "sgd"}, "'sgd' is unknown"),
    ({"learning_rate": 0.0}, "LEARNING_RATE is 0.0"),
    ({"warmup_steps": 80, "cooldown_steps": 30}, "do not fit into TRAIN_STEPS"),
    ({"clip_norm": -1.0}, "clip_norm is -1.0"),
    ({"weight_decay": 0.1}, "weight_decay 0.1 has no effect with adafactor"),
    ({"b1": 0.9}, "b1 is 0.9 but has no effect with adafactor"),
    ({"b2": 0.5}, "b2 is 0.5 but has no effect with adafactor"),
    (
      {"name": "adamw", "multiply_by_parameter_scale": False},
      "multiply_by_parameter_scale is False but has no effect with adamw",
    ),
    (
      {"name": "adamw", "min_dim_size_to_factor": 128},
      "min_dim_size_to_factor is 128 but has no effect with adamw",
    ),
  ],
)
def test_bad_settings_are_refused_in_one_line(fields, message):
  good = {"name": "adafactor", "learning_rate": 1e-3, "total_steps": 100}
  with pytest.raises(UserError, match=message) as error:
    Optimizer(**(good | fields))
  assert "\n" not in str(error.value)


def test_words_say_each_setting_once():
  rule = Optimizer(
    name="adamw", learning_rate=1e-3, total_steps=10, clip_norm=0.5
  )
  assert rule.words.count("0.5") == 1
  assert rule.words.count("norm") == 1


@pytest.mark.parametrize("momenta", [{}, {"b1": 0.8, "b2": 0.95}])
def test_adamw_with_clipping_equals_numpy(momenta):
  """Loshchilov & Hutter, arXiv:1711.05101, Algorithm 2, in float64."""
  optimizer = Optimizer(
    name="adamw",
    learning_rate=0.1,
    total_steps=8,
    warmup_steps=2,
    cooldown_steps=4,
    clip_norm=2.0,
    weight_decay=0.2,
    **momenta,
  )
  b1, b2 = momenta.get("b1", 0.9), momenta.get("b2", 0.999)
  random = np.random.default_rng(0)
  params = {"a": random.normal(size=(3, 4)), "b": random.normal(size=5)}
  rule = optimizer.transformation()
  ours = jax.tree.map(jnp.float32, params)
  state = rule.init(ours)
  first = {name: np.zeros_like(x) for name, x in params.items()}
  second = {name: np.zeros_like(x) for name, x in params.items()}
  norms = []
  for step in range(8):
    scale = 0.1 if step % 2 else 3.0  # some below the limit, some above
    gradients = {
      name: scale * random.normal(size=x.shape) for name, x in params.items()
    }
    updates, state = rule.update(
      jax.tree.map(jnp.float32, gradients), state, ours
    )
    ours = optax.apply_updates(ours, updates)

    norm = np.sqrt(sum(np.sum(g**2) for g in gradients.values()))
    norms.append(norm)
    rate = 0.1 * min(1, step / 2) * min(1, (8 - step) / 4)
    for name, gradient in gradients.items():
      gradient = gradient * min(1, 2.0 / norm)
      first[name] = b1 * first[name] + (1 - b1) * gradient
      second[name] = b2 * second[name] + (1 - b2) * gradient**2
      mean = first[name] / (1 - b1 ** (step + 1))
      square = second[name] / (1 - b2 ** (step + 1))
      direction = mean / (np.sqrt(square) + 1e-8) + 0.2 * params[name]
      params[name] = params[name] - rate * direction
  assert min(norms) < 2.0 < max(norms)
  for name, expected in params.items():
    np.testing.assert_allclose(ours[name], expected, rtol=2e-5, atol=2e-6)
