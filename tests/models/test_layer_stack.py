"""The ways of running layers give the numbers of the plain one."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.models import layer_stack
from gkd.models import registry
from gkd.models.decoder_only import DecoderConfig
from gkd.models.decoder_only import Gemma
from gkd.models.layer_stack import Execution
from gkd.types import UserError
from tests import tiny
from tests import tiny_t5gemma

SHARED = dataclasses.replace(
  tiny.STUDENT.config, num_encoder_layers=3, num_decoder_layers=3
)
EACH = dataclasses.replace(SHARED, bias_per_layer=True)
LOCAL = DecoderConfig(
  vocab_size=20,
  emb_dim=16,
  num_layers=3,
  num_heads=2,
  num_kv_heads=1,
  head_dim=6,
  mlp_dim=24,
  eos_ids=(1,),
  gemma=Gemma(
    post_norms=True,
    embedding_scale=4.0,
    norm_offset=1.0,
    query_scale=0.4,
    sliding_window=2,
    global_every=3,
    local_rope_theta=100.0,
  ),
)
INPUTS = np.array([[5, 6, 7, 0], [8, 9, 0, 0]], np.int32)
TARGETS = np.array([[4, 3, 1], [7, 1, 0]], np.int32)


def loss_and_gradients(model, params):
  def loss(params):
    hidden = model.hidden(params, INPUTS, TARGETS)
    return (hidden**2).mean()

  return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize(
  ("config", "execution"),
  [
    (SHARED, Execution(scan=True)),
    (SHARED, Execution(remat="minimal")),
    (EACH, Execution(scan=True, remat="full")),
    (LOCAL, Execution(scan=True)),
    (tiny_t5gemma.config_of("unbalanced"), Execution(scan=True)),
  ],
)
def test_loss_and_gradients_are_those_of_plain_layers(config, execution):
  model = registry.build(config, execution=execution)
  params = model.init(jax.random.key(0))
  assert model.abstract_params == jax.eval_shape(lambda: params)
  loss, gradients = loss_and_gradients(model, params)
  gradients = layer_stack.unstacked(gradients)
  plain = loss_and_gradients(
    registry.build(config), layer_stack.unstacked(params)
  )
  np.testing.assert_allclose(loss, plain[0], rtol=1e-6)
  for one, other in zip(
    *map(jax.tree.leaves, (gradients, plain[1])), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-7)


class Mask(nn.Module):
  @nn.compact
  def __call__(self, x):
    scale = self.param("scale", nn.initializers.ones, ())
    return x + scale * nn.Dropout(0.5)(jnp.ones_like(x), deterministic=False)


class Masks(nn.Module):
  execution: Execution

  def setup(self):
    self.layers = [Mask() for _ in range(2)]

  def __call__(self, x):
    return layer_stack.through(self, self.layers, lambda m, x: m(x), x)


@pytest.mark.parametrize(
  "execution", [Execution(scan=True), Execution(remat="full")]
)
def test_each_layer_draws_a_dropout_mask_of_its_own(execution):
  zeros, rngs = jnp.zeros(100), {"dropout": jax.random.key(0)}
  params = Masks(execution).init({"params": jax.random.key(1), **rngs}, zeros)
  if execution.scan:
    params = layer_stack.stacked(params)
  drawn = Masks(execution).apply(params, zeros, rngs=rngs)
  assert set(np.unique(drawn)) == {0.0, 2.0, 4.0}


@pytest.mark.parametrize(
  "config",
  [
    EACH,
    dataclasses.replace(LOCAL, qkv_bias=True),
    tiny_t5gemma.config_of("untied"),
  ],
)
def test_gathered_parameters_are_smaller_and_give_the_same_logits(config):
  model = registry.build(dataclasses.replace(config, dtype="bfloat16"))
  params = jax.tree.map(
    lambda x: x + jnp.float32(1 / 3), model.init(jax.random.key(0))
  )
  gathered = model.gathered(params)
  sizes = [
    sum(x.nbytes for x in jax.tree.leaves(t)) for t in (gathered, params)
  ]
  assert sizes[0] < 0.8 * sizes[1]
  # Else XLA may leave out the rounding of a cast.
  exact = {"xla_allow_excess_precision": False}
  logits = jax.jit(model.logits, compiler_options=exact)
  tiny.assert_identical(
    *(logits(given, INPUTS, TARGETS) for given in (gathered, params))
  )


def test_an_unknown_policy_is_refused():
  with pytest.raises(UserError, match="REMAT is 'half'; expected one of none"):
    Execution(remat="half")
