"""Runs of named sizes need no file and are what their flags say."""

import jax
import numpy as np
import pytest

from gkd import trees
from gkd.experiments.bench.random_run import RandomRun
from gkd.experiments.bench.random_run import random_params
from gkd.models import sizes
from gkd.types import UserError


def test_a_tiny_run_in_bfloat16(tmp_path):
  plan = RandomRun(size="Tiny", dtype="bfloat16", dropout=0.1, chunk_size=4)
  run = plan.build(str(tmp_path))
  batch = run.loader.batch(0)
  assert batch.inputs.shape == (8, 32)
  assert batch.targets.shape == (8, 16)
  assert batch.input_mask.all()
  assert batch.weights.all()
  assert 3 <= batch.inputs.min() <= batch.inputs.max() < 512
  student, teacher = run.student, run.teacher
  assert student.config.dropout_rate == 0.1
  assert teacher.config.dropout_rate == 0
  for model, params, dtype in (
    (student, run.initial_params(), "float32"),
    (teacher, teacher.params, "bfloat16"),
  ):
    assert model.config.dtype == "bfloat16"
    assert {x.dtype.name for x in jax.tree.leaves(params)} == {dtype}
  assert run.objective.chunk_size == 4
  assert run.rollout.student_fraction == 1
  assert run.loader.vocabulary.eos_ids == ()


def test_weights_have_about_the_scale_of_t5(tmp_path):
  run = RandomRun(size="tiny").build(str(tmp_path))
  leaves = trees.flatten(random_params(run.student.lm, 0, "float32"))
  spread = {name: np.std(leaf) for name, leaf in leaves.items()}
  assert spread["token_embedder/embedding"] == pytest.approx(1, rel=0.05)
  kernel = spread["decoder/layers_1/mlp/wi/kernel"]
  assert kernel == pytest.approx(64**-0.5, rel=0.05)
  assert (leaves["decoder/decoder_norm/scale"] == 1).all()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"size": "t5_1_1_smal"}, "--size is .*did you mean T5_1_1_SMALL"),
    ({"teacher_size": "mini"}, "--teacher_size is 'mini'; .*t5_1_1_small"),
    ({"size": "mt5_small"}, "--size is 'mt5_small'; .*at most 100,000 ids"),
    ({"batch_size": 0}, "--batch_size is 0; expected a whole number"),
    ({"target_length": 0}, "--target_length is 0; expected"),
  ],
)
def test_wrong_flags_are_one_line(changes, message, tmp_path):
  with pytest.raises(UserError, match=message) as error:
    RandomRun(**{"size": "tiny"} | changes).build(str(tmp_path))
  assert "\n" not in str(error.value)


def test_lengths_that_are_not_given_are_those_of_the_size():
  plan = RandomRun(size=sizes.NAMES[0], target_length=7)
  assert (plan.input_length, plan.target_length) == (64, 7)
