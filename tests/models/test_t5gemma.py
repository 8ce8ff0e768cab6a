"""T5Gemma against outputs of transformers, and what it owes as a family."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import partitioning
from gkd import trees
from gkd.models import kept_layers
from gkd.models import registry
from gkd.models import t5gemma_params
from gkd.types import UserError
from tests import tiny_t5gemma

CASE = "unbalanced"


@pytest.fixture(scope="module")
def outputs():
  """Of prompts: logits, cached ones, those after one token too many."""
  model = registry.build(tiny_t5gemma.config_of(CASE))
  params = trees.unflatten(tiny_t5gemma.arrays(CASE))

  @jax.jit
  def run(inputs, mask, targets):
    def step(carry, tokens):
      cache, logits = carry
      return model.decode(params, cache, tokens), logits

    start = model.prefill(params, inputs, 9, input_mask=mask)
    fed = jnp.pad(targets, ((0, 0), (0, 1))).T
    (_, last), cached = jax.lax.scan(step, start, fed)
    logits = model.logits(params, inputs, targets, input_mask=mask)
    return logits, jnp.swapaxes(cached, 0, 1)[:, :-1], last

  return run


def test_padded_rows_equal_transformers_row_by_row(outputs, golden):
  with np.load(golden / "t5gemma.npz") as file:
    want = file["logits"]
  got, _, _ = outputs(*tiny_t5gemma.batch(4))
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.ptp(want))


def test_decoding_with_cache_equals_teacher_forcing_until_it_is_full(outputs):
  want, got, last = outputs(*tiny_t5gemma.batch(4))
  np.testing.assert_allclose(got, want, atol=1e-5 * np.ptp(want))
  assert np.isnan(last).all()


def test_filler_changes_nothing_and_no_prompt_is_no_nan(outputs):
  ids, mask, targets = tiny_t5gemma.batch(4)
  want, _, _ = outputs(ids, mask, targets)
  got, _, _ = outputs(np.where(mask, ids, 10**6), mask, targets)
  np.testing.assert_array_equal(got, want)
  assert np.isfinite(outputs(ids, mask & False, targets)[0]).all()


@pytest.mark.parametrize("case", tiny_t5gemma.CASES)
def test_the_table_has_the_models_parameters_and_a_config_survives_json(case):
  config = tiny_t5gemma.config_of(case)
  model, table = registry.build(config), t5gemma_params.table(config)
  params = jax.eval_shape(model.init, jax.random.key(0))
  assert model.abstract_params == params
  shapes = {n: leaf.shape for n, leaf in trees.flatten(params).items()}
  assert {name: row.shape for name, row in table.items()} == shapes
  assert list(table) == sorted(table)
  assert len({row.hf_name for row in table.values()}) == len(table)
  mesh = partitioning.make_mesh(model=2)
  partitioning.parameter_shardings(model, params, mesh)
  assert registry.family_of(config) == registry.T5GEMMA


def test_kept_layers_keep_their_places():
  config, arrays = (
    tiny_t5gemma.config_of("balanced"),
    tiny_t5gemma.arrays("balanced"),
  )
  choice = kept_layers.KeepLayers(("range(2,4)", (0, 3)))
  small, picked = kept_layers.pick(config, arrays, choice)
  assert (small.encoder.num_layers, small.decoder.num_layers) == (2, 2)
  assert list(picked) == list(t5gemma_params.table(small))
  name = "layers_{}/encoder_decoder_attention/key/kernel"
  assert (
    picked[f"decoder/{name.format(1)}"] is arrays[f"decoder/{name.format(3)}"]
  )
  with pytest.raises(UserError, match="layer 1 would become layer 0 of the st"):
    kept_layers.pick(config, arrays, kept_layers.KeepLayers("range(1,3)"))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"logit_cap": 0}, "logit_cap is 0; expected a positive number"),
    ({"encoder": {"attention_cap": -1.0}}, "gemma.attention_cap is -1.0; "),
    ({"decoder": {"num_kv_heads": 4}}, "num_kv_heads is 4; expected a divisor"),
    ({"decoder": {"sliding_window": 0}}, "a sliding_window and a global_every"),
    ({"encoder": {"width": 3}}, "unexpected keyword argument 'width'"),
    ({"start_id": 61}, "start_id is 61; expected ids below vocab_size=61"),
  ],
)
def test_what_makes_no_model_is_refused(change, message):
  fields = dataclasses.asdict(tiny_t5gemma.config_of("balanced"))
  for name, value in change.items():
    fields[name] = fields[name] | value if isinstance(value, dict) else value
  with pytest.raises(UserError, match=message):
    registry.config_of(registry.T5GEMMA, fields)
