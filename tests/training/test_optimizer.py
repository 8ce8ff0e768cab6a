import numpy as np
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
    ({"weight_decay": 0.1}, "has no effect with adafactor"),
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
