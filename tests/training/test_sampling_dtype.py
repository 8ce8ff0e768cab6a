"""Samples of a student whose weights are rounded while it writes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import masks
from gkd.sampling import generate
from gkd.training import rollout
from gkd.training.rollout import Rollout
from gkd.types import Model
from gkd.types import UserError
from tests import tiny
from tests.models import test_layer_stack as families
from tests.training import test_rollout as cases

ROUNDED = Rollout(1.0, sampling_dtype="bfloat16")
TIED = dataclasses.replace(families.SHARED, logits_via_embedding=True)


@pytest.mark.parametrize("config", [families.SHARED, TIED, families.LOCAL])
def test_samples_have_log_probs_of_the_rounded_weights(config):
  lm = families.registry.build(config)
  params = lm.init(jax.random.key(0))
  batch = cases._batch()
  inputs = np.clip(batch.inputs, 0, 9)
  batch = batch.replace(inputs=inputs)
  kept = batch.replace(log_probs=0.0 * batch.weights)  # as a rollout keeps them
  written = {
    plan.sampling_dtype: rollout.roll_out(
      given,
      step=0,
      seed=0,
      plan=plan,
      student=Model(lm, params),
      teacher=None,
      vocabulary=tiny.VOCABULARY,
    ).batch
    for plan, given in ((Rollout(1.0), kept), (ROUNDED, batch))
  }
  never = generate.forbidden_ids(lm.start_id, tiny.VOCABULARY)

  def log_probs(params, tokens):
    logits = lm.logits(params, inputs, tokens, input_mask=batch.input_mask)
    size = lm.vocabulary_size
    logits = masks.mask_padded_ids(logits, size, forbidden_ids=never)
    return jnp.take_along_axis(
      jax.nn.log_softmax(logits), tokens[..., None], axis=-1
    )[..., 0]

  def difference(dtype):
    rows = written[dtype]
    scored = log_probs(params, rows.targets)
    return np.abs(scored - rows.log_probs)[rows.weights > 0].max()

  assert difference(None) < 1e-5
  assert 1e-4 < difference("bfloat16") < 0.1


def test_another_type_is_refused():
  with pytest.raises(UserError, match="sampling_dtype is 'float16'; expected"):
    Rollout(1.0, sampling_dtype="float16")


def test_only_the_writer_of_the_students_rows_is_rounded():
  model = Model(cases.MODEL, cases.STUDENT)
  assert Rollout(1.0).student_sampler(model, None)[0] is model
  writer, _ = ROUNDED.student_sampler(model, None)
  assert writer.lm.sampling_dtype == "bfloat16"
  assert writer.params is model.params
  assert "with weights in bfloat16" in ROUNDED.describe()
