"""What must hold for every T5, whatever its weights."""

import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import trees
from gkd.models import t5
from gkd.types import Pair
from gkd.types import UserError

TINY = {
  "vocab_size": 64,
  "emb_dim": 16,
  "num_heads": 3,  # 3·8 differs from the width
  "num_encoder_layers": 2,
  "num_decoder_layers": 2,
  "head_dim": 8,
  "mlp_dim": 24,
}
CONFIGS = {
  "gated gelu, untied": {"mlp_activations": ("gelu", "linear")},
  "relu, tied": {"logits_via_embedding": True},
  "gated silu, bias per layer, few buckets": {
    "mlp_activations": ("silu", "linear"),
    "bias_per_layer": True,
    "relative_buckets": 8,
    "relative_max_distance": 10,
  },
}
# Families that differ from those above where the cache is concerned.
MORE = {
  "gated silu, untied": {"mlp_activations": ("silu", "linear")},
  "gated gelu, bias per layer, deep encoder": {
    "mlp_activations": ("gelu", "linear"),
    "bias_per_layer": True,
    "num_encoder_layers": 3,
    "num_decoder_layers": 1,
  },
  "gated gelu, tied": {
    "mlp_activations": ("gelu", "linear"),
    "logits_via_embedding": True,
  },
}
INPUT_LENGTH, TARGET_LENGTH = 7, 12


@functools.cache
def build(name="gated gelu, untied", **overrides):
  """A model and parameters whose norms and biases matter."""
  options = TINY | (CONFIGS | MORE)[name] | overrides
  model = t5.encoder_decoder(t5.T5Config(**options))
  # Not by init: compiling its random numbers takes seconds.
  shapes = trees.flatten(jax.eval_shape(model.init, jax.random.key(0)))
  random = np.random.RandomState(1)
  params = {}
  for path, leaf in shapes.items():
    value = random.normal(size=leaf.shape)
    if path.endswith("kernel"):
      value /= np.sqrt(leaf.shape[0])
    elif path.endswith("scale"):
      value = 1 + 0.2 * value
    params[path] = value.astype(leaf.dtype)
  return model, trees.unflatten(params)


@functools.cache
def jitted_logits(model):
  return jax.jit(model.logits)


def batch(num_rows=3):
  """Distinct ids: inputs 2…31, targets 32…63; row 1 is padded."""
  random = np.random.RandomState(0)
  inputs = 2 + np.stack(
    [random.permutation(30)[:INPUT_LENGTH] for _ in range(num_rows)]
  )
  targets = 32 + np.stack(
    [random.permutation(32)[:TARGET_LENGTH] for _ in range(num_rows)]
  )
  inputs[1, 4:] = 0
  targets[1, 5:] = 0
  return inputs.astype(np.int32), targets.astype(np.int32)


def widen(tokens, columns):
  return np.pad(tokens, [(0, 0), (0, columns)])


@pytest.mark.parametrize("name", [*CONFIGS, *MORE])
def test_decoding_with_cache_equals_teacher_forcing(name):
  model, params = build(name)
  inputs, targets = batch()

  @jax.jit
  def both(params, inputs, targets):
    def step(carry, tokens):
      cache, logits = carry
      return model.decode(params, cache, tokens), logits

    start = model.prefill(params, inputs, TARGET_LENGTH)
    cached = jax.lax.scan(step, start, targets.T)[1]
    return jnp.swapaxes(cached, 0, 1), model.logits(params, inputs, targets)

  got, want = both(params, inputs, targets)
  real = targets > 0
  np.testing.assert_allclose(got[real], want[real], atol=1e-5)


def test_a_full_cache_gives_nan_instead_of_wrong_logits():
  model, params = build()
  inputs, targets = batch()
  decode = jax.jit(model.decode)
  cache, logits = jax.jit(model.prefill, static_argnums=2)(params, inputs, 2)
  assert np.isfinite(logits).all()
  cache, logits = decode(params, cache, targets[:, 0])
  assert np.isfinite(logits).all()
  cache, logits = decode(params, cache, targets[:, 1])
  assert np.isnan(logits).all()


def test_decoding_reads_the_prompt_only_from_the_cache():
  model, params = build()
  inputs, targets = batch()
  cache, _ = model.prefill(params, inputs, 4)
  want = model.decode(params, cache, targets[:, 0])[1]
  poisoned = trees.unflatten(
    {
      path: array * np.nan
      if path.startswith("encoder/")
      or path.endswith("encoder_decoder_attention/key/kernel")
      or path.endswith("encoder_decoder_attention/value/kernel")
      else array
      for path, array in trees.flatten(params).items()
    }
  )
  got = model.decode(poisoned, cache, targets[:, 0])[1]
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_changes_nothing(name):
  model, params = build(name)
  inputs, targets = batch()
  logits = jitted_logits(model)
  real = targets > 0
  want = logits(params, inputs, targets)[real]
  got = logits(params, widen(inputs, 3), widen(targets, 4))
  got = got[:, :TARGET_LENGTH][real]
  np.testing.assert_allclose(got, want, atol=1e-5)

  prefill = jax.jit(model.prefill, static_argnums=2)
  first = prefill(params, inputs, 3)[1]
  wider = prefill(params, widen(inputs, 3), 5)[1]
  np.testing.assert_allclose(wider, first, atol=1e-5)


def test_rows_do_not_depend_on_their_neighbours():
  model, params = build()
  inputs, targets = batch()
  together = jitted_logits(model)(params, inputs, targets)
  alone = jitted_logits(model)(params, inputs[:1], targets[:1])
  np.testing.assert_allclose(together[:1], alone, atol=1e-5)


def embedding_gradient(model, params, inputs, targets, position):
  """Which rows of the table the logits at one position depend on: [V] bool."""

  def at(table):
    changed = dict(params, token_embedder={"embedding": table})
    logits = model.logits(changed, inputs, targets)[0, position]
    return jnp.sum(logits * jnp.cos(jnp.arange(logits.size)))

  gradient = jax.jit(jax.grad(at))(params["token_embedder"]["embedding"])
  return np.abs(gradient).max(axis=1) > 0


def test_logits_depend_on_exactly_the_prompt_and_the_earlier_targets():
  model, params = build()
  inputs, targets = batch()
  position = 6
  touched = embedding_gradient(model, params, inputs, targets, position)
  expected = np.zeros(64, bool)
  expected[0] = True  # the start token
  expected[inputs[0]] = True
  expected[targets[0, :position]] = True
  np.testing.assert_array_equal(touched, expected)


def test_a_target_of_0_removes_its_key():
  # T5X masks key t, which holds target t−1, by the id of target t.
  model, params = build()
  inputs, targets = batch()
  targets[0, 3] = 0
  touched = embedding_gradient(model, params, inputs, targets, 6)
  assert not touched[targets[0, 2]]
  assert touched[targets[0, [0, 1, 4, 5]]].all()


def test_packed_rows_equal_separate_rows():
  model, params = build("gated silu, bias per layer, few buckets")
  inputs, targets = batch(2)
  want = jitted_logits(model)(params, inputs, targets)
  packed = jitted_logits(model)(
    params,
    inputs.reshape(1, -1),
    targets.reshape(1, -1),
    segments=Pair(
      np.repeat([[1, 2]], INPUT_LENGTH, axis=1),
      np.repeat([[1, 2]], TARGET_LENGTH, axis=1),
    ),
  ).reshape(want.shape)
  real = targets > 0
  np.testing.assert_allclose(packed[real], want[real], atol=1e-5)


def test_dropout_needs_a_key_and_a_rate():
  inputs, targets = batch()
  quiet, params = build(dropout_rate=0.0)
  noisy, _ = build(dropout_rate=0.5)
  key = jax.random.key(3)
  hidden = jax.jit(quiet.hidden)
  want = hidden(params, inputs, targets)
  assert (hidden(params, inputs, targets, dropout_key=key) == want).all()

  hidden = jax.jit(noisy.hidden)
  assert (hidden(params, inputs, targets) == want).all()
  dropped = hidden(params, inputs, targets, dropout_key=key)
  again = hidden(params, inputs, targets, dropout_key=key)
  other = hidden(params, inputs, targets, dropout_key=jax.random.key(4))
  assert (dropped == again).all()
  assert not np.allclose(dropped, want)
  assert not np.allclose(dropped, other)


def test_dropout_is_where_t5x_has_it():
  model, params = build()
  inputs, targets = batch()
  calls = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, nn.Dropout):
      calls.append((args[0].shape, tuple(context.module.broadcast_dims)))
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    jax.eval_shape(
      lambda key: model.hidden(params, inputs, targets, dropout_key=key),
      jax.random.key(0),
    )
  # t5x/examples/t5/network.py and layers.py, from top to bottom.
  each, shared = (), (-2,)
  i, t = INPUT_LENGTH, TARGET_LENGTH
  encoder, decoder = (3, i, 16), (3, t, 16)
  encoder_layer = [
    ((3, 3, i, i), shared),  # attention weights
    (encoder, shared),
    ((3, i, 24), shared),  # inside the MLP
    (encoder, shared),
  ]
  decoder_layer = [
    ((3, 3, t, t), shared),
    (decoder, shared),
    ((3, 3, t, i), shared),
    (decoder, shared),
    ((3, t, 24), shared),
    (decoder, shared),
  ]
  assert calls == [
    (encoder, shared),  # token vectors
    *encoder_layer,
    *encoder_layer,
    (encoder, each),
    (decoder, shared),
    *decoder_layer,
    *decoder_layer,
    (decoder, shared),
  ]


@pytest.mark.parametrize("name", list(CONFIGS)[:2])
def test_head_works_on_any_leading_axes(name):
  model, params = build(name)
  inputs, targets = batch()
  hidden = model.hidden(params, inputs, targets)
  logits = model.logits(params, inputs, targets)
  assert hidden.shape == (3, TARGET_LENGTH, 16)
  assert logits.shape == (3, TARGET_LENGTH, 64)
  for part in (np.s_[:], np.s_[0], np.s_[1, 2]):
    got = model.head(params, hidden[part])
    np.testing.assert_allclose(got, logits[part], atol=1e-5)


def test_bfloat16_keeps_float32_where_it_matters():
  model, params = build(dtype="bfloat16")
  inputs, targets = batch()
  hidden = jax.eval_shape(model.hidden, params, inputs, targets)
  assert hidden.dtype == jnp.bfloat16
  assert jax.eval_shape(model.head, params, hidden).dtype == jnp.float32
  gradients = jax.eval_shape(
    jax.grad(lambda p: model.logits(p, inputs, targets).sum()), params
  )
  assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {
    np.dtype("float32")
  }
  cache, logits = jax.eval_shape(
    lambda params: model.prefill(params, inputs, 3), params
  )
  assert cache.past[0].keys.dtype == jnp.bfloat16
  assert logits.dtype == jnp.float32


def test_filler_rows_stay_finite():
  model, params = build()
  inputs, targets = batch()
  inputs[2] = targets[2] = 0

  @jax.jit
  @jax.value_and_grad
  def total(params):
    return model.logits(params, inputs, targets).sum()

  value, gradient = total(params)
  assert np.isfinite(value)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  assert np.isfinite(model.prefill(params, inputs, 3)[1]).all()


def test_equal_configs_give_the_identical_record():
  size = {**TINY, "mlp_activations": ["relu"]}
  one = t5.encoder_decoder(t5.T5Config.from_size(size, dropout_rate=0.0))
  two = t5.encoder_decoder(
    t5.T5Config(
      **TINY, mlp_activations="relu", dtype=jnp.float32, dropout_rate=0.0
    )
  )
  assert one is two
  assert hash(one) == hash(two)
  assert one.vocabulary_size == 64
  config = t5.T5Config(**TINY, vocabulary_size=60)
  assert t5.encoder_decoder(config).vocabulary_size == 60


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"emb_dim": 0}, "emb_dim is 0; expected a positive integer"),
    ({"num_heads": 2.5}, "num_heads is 2.5; expected a positive integer"),
    ({"mlp_activations": ("gleu",)}, r"is \('gleu',\); expected one or more"),
    ({"mlp_activations": ()}, r"mlp_activations is \(\); expected one or more"),
    ({"dtype": "float16"}, "dtype is 'float16'; expected one of float32"),
    ({"dtype": "fp32"}, "dtype is 'fp32'; expected one of float32"),
    ({"dtype": "(1,"}, r"dtype is '\(1,'; expected one of float32"),
    ({"dropout_rate": 1.0}, "dropout_rate is 1.0; expected a number from 0"),
    ({"dropout_rate": "nan"}, "dropout_rate is 'nan'; expected a number from"),
    (
      {"layer_norm_epsilon": 0},
      "layer_norm_epsilon is 0; expected a number",
    ),
    ({"layer_norm_epsilon": math.nan}, "layer_norm_epsilon is nan; expected"),
    ({"logits_via_embedding": "x"}, "logits_via_embedding is 'x'; expected Tr"),
    ({"mlp_activations": ({},)}, r"is \({},\); expected one or more"),
    ({"vocabulary_size": 65}, "vocabulary_size is 65; expected at most"),
    ({"relative_buckets": 7}, "relative_buckets is 7; expected an even number"),
    ({"relative_max_distance": 16}, "expected more than 16"),
    (
      {"embed_dim": 16},
      r"unknown T5Config field\(s\) embed_dim; expected",
    ),
  ],
)
def test_bad_sizes_are_refused(change, message):
  with pytest.raises(UserError, match=message):
    t5.T5Config.from_size(TINY, **change)


@pytest.mark.parametrize("given", [{}, {"vocab_size": 18}, {"emb_dim": 16}])
def test_a_size_that_is_not_given_has_no_default(given):
  with pytest.raises(UserError, match="give all sizes, or a pub") as error:
    t5.T5Config.from_size(given)
  told = str(error.value).partition(" has no ")[2].partition(";")[0]
  assert set(told.split(", ")) == TINY.keys() - given.keys()
