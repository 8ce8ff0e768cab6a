"""Decoder-only models against a float64 reference that shares no code."""

import dataclasses
import functools
import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import partitioning
from gkd import trees
from gkd.losses import likelihood
from gkd.models import decoder_only
from gkd.models import decoder_params
from gkd.models import layers
from gkd.models import registry
from gkd.models.decoder_only import DecoderConfig
from gkd.models.decoder_only import Gemma
from gkd.models.decoder_only import RopeScaling
from gkd.types import Model
from gkd.types import Pair
from gkd.types import UserError

TINY = {
  "vocab_size": 40,
  "emb_dim": 16,
  "num_layers": 2,
  "num_heads": 4,
  "num_kv_heads": 2,
  "head_dim": 6,  # 4·6 differs from the width
  "mlp_dim": 24,
  "rope_theta": 50.0,
  "qk_norm": True,
  "eos_ids": (9, 11),
}
LLAMA3 = RopeScaling(
  kind="llama3",
  factor=8.0,
  low_frequency_factor=0.5,
  high_frequency_factor=2.0,
  original_length=16,  # one frequency is kept, one blended, one slowed down
)
GEMMA = Gemma(
  post_norms=True,
  embedding_scale=4.0,
  norm_offset=1.0,
  query_scale=0.3,
  sliding_window=3,  # shorter than the prompts
  global_every=2,
  local_rope_theta=10.0,
)
CONFIGS = {
  "llama3, bias, untied": {
    "rope_scaling": LLAMA3,
    "qkv_bias": True,
    "sliding_window": 2,
  },
  "gemma, linear, tied": {
    "rope_scaling": RopeScaling(kind="linear", factor=4.0),
    "mlp_activations": ("gelu", "linear"),
    "logits_via_embedding": True,
    "gemma": GEMMA,
    "start_id": 2,
  },
}
LENGTHS = (7, 4, 1, 0)
TARGET_LENGTH = 5


@functools.cache
def build(name):
  """A model and parameters whose norms, offsets and biases matter."""
  model = decoder_only.decoder_only(DecoderConfig(**TINY | CONFIGS[name]))
  random = np.random.RandomState(1)
  params = {}
  for path, row in decoder_params.table(model.config).items():
    value = random.normal(size=row.shape)
    if path.endswith("kernel"):
      value *= 1.5 / np.sqrt(row.shape[0])
    elif path.endswith("scale"):
      value = 0.2 * value + (0 if model.config.gemma else 1)
    params[path] = value.astype(np.float32)
  return model, trees.unflatten(params)


@functools.cache
def batch():
  """Prompts of LENGTHS with the id 0 inside and at the end, and targets."""
  random = np.random.RandomState(0)
  inputs = random.randint(0, 40, (len(LENGTHS), 7)).astype(np.int32)
  mask = np.arange(7) < np.array(LENGTHS)[:, None]
  inputs[0, [3, 6]] = inputs[1, 3] = 0
  targets = random.randint(0, 40, (len(LENGTHS), TARGET_LENGTH))
  targets[0, 2] = 0
  return inputs, mask, targets.astype(np.int32)


@functools.cache
def program(model):
  """Logits, cached ones, and those after one token more than there is room."""

  def both(params, inputs, mask, targets):
    def step(carry, tokens):
      cache, logits = carry
      return model.decode(params, cache, tokens), logits

    fed = jnp.pad(targets, ((0, 0), (0, 1))).T
    start = model.prefill(params, inputs, TARGET_LENGTH, input_mask=mask)
    (_, last), cached = jax.lax.scan(step, start, fed)
    logits = model.logits(params, inputs, targets, input_mask=mask)
    return logits, jnp.swapaxes(cached, 0, 1)[:, :-1], last

  return jax.jit(both)


@pytest.mark.parametrize("name", CONFIGS)
def test_each_row_equals_a_float64_reference_without_padding(name):
  model, params = build(name)
  inputs, mask, targets = batch()
  got, _, _ = program(model)(params, inputs, mask, targets)
  for row, length in enumerate(LENGTHS):
    prompt = inputs[row, :length] if length else [model.start_id]
    tokens = np.concatenate([prompt, targets[row, :-1]]).astype(int)
    want = reference(model.config, params, tokens)[-TARGET_LENGTH:]
    np.testing.assert_allclose(
      got[row], want, atol=1e-5 * np.ptp(want), err_msg=f"row {row}"
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_with_cache_equals_teacher_forcing_until_it_is_full(name):
  model, params = build(name)
  want, got, last = program(model)(params, *batch())
  np.testing.assert_allclose(got, want, atol=1e-5 * np.ptp(want))
  assert np.isnan(last).all()


def test_a_target_changes_later_logits_alone_and_filler_none():
  model, params = build("gemma, linear, tied")
  inputs, mask, targets = batch()
  before, _, _ = program(model)(params, inputs, mask, targets)
  other = np.where(mask, inputs, 10**6)  # no id at all
  changed = targets.copy()
  changed[:, 2] = (changed[:, 2] + 1) % 40
  after, _, _ = program(model)(params, other, mask, changed)
  np.testing.assert_array_equal(after[:, :3], before[:, :3])
  assert (np.abs(after - before)[:, 3:].max(axis=-1) > 1e-3).all()


def test_a_packed_batch_is_refused():
  model, params = build("llama3, bias, untied")
  inputs, _, targets = batch()
  with pytest.raises(UserError, match="a packed batch; expected one prompt"):
    model.hidden(params, inputs, targets, segments=Pair(inputs, targets))


def test_four_devices_equal_one():
  model, params = build("llama3, bias, untied")
  inputs, mask, targets = batch()

  def loss(params, inputs, mask, targets):
    logits = model.logits(params, inputs, targets, input_mask=mask)
    return jnp.mean(likelihood.cross_entropy(logits, targets))

  run = jax.jit(jax.value_and_grad(loss))
  want = run(params, inputs, mask, targets)
  mesh = partitioning.make_mesh(model=2)
  split = partitioning.place_model(Model(model, params), mesh).params
  kernel = split["decoder"]["layers_0"]["self_attention"]["key"]["kernel"]
  assert kernel.addressable_shards[0].data.shape == (16, 6)
  rows = partitioning.batch_sharding(mesh)
  got = run(split, *partitioning.place((inputs, mask, targets), rows))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-5), got, want
  )


def test_bfloat16_computes_in_it_and_keeps_logits_in_float32():
  config = DecoderConfig(**TINY | CONFIGS["gemma, linear, tied"])
  model = decoder_only.decoder_only(
    dataclasses.replace(config, dtype="bfloat16")
  )
  inputs, mask, targets = batch()
  params = model.abstract_params
  cache, first = jax.eval_shape(
    lambda p: model.prefill(p, inputs, 3, input_mask=mask), params
  )
  hidden, logits = jax.eval_shape(
    lambda p: (
      model.hidden(p, inputs, targets),
      model.logits(p, inputs, targets),
    ),
    params,
  )
  halves = {leaf.dtype for leaf in jax.tree.leaves(cache.past)}
  assert halves == {hidden.dtype} == {jnp.dtype("bfloat16")}
  assert {first.dtype, logits.dtype} == {jnp.dtype("float32")}
  assert cache.past[0].keys.shape == (4, 2, 7 + 3, 6)


def test_dropout_is_on_vectors_branches_and_inside_the_mlp_with_a_key_alone():
  config = DecoderConfig(**TINY, dropout_rate=0.1)
  model = decoder_only.decoder_only(config)
  inputs, _, targets = batch()
  shapes = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, nn.Dropout) and not args[1]:
      shapes.append(args[0].shape[1:])
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    for key in (None, jax.random.key(0)):
      assert not shapes
      hidden = functools.partial(model.hidden, dropout_key=key)
      jax.eval_shape(hidden, model.abstract_params, inputs, targets)
  stream, inside = (11, 16), (11, 24)
  assert shapes == [stream, *[stream, inside, stream] * 2, stream]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_table_has_the_models_parameters(name):
  model, _ = build(name)
  table = decoder_params.table(model.config)
  params = jax.eval_shape(model.init, jax.random.key(0))
  assert model.abstract_params == params
  shapes = {n: leaf.shape for n, leaf in trees.flatten(params).items()}
  assert {name: row.shape for name, row in table.items()} == shapes
  assert list(table) == sorted(table)
  for other in ("hf_name", "gguf_name"):
    assert len({getattr(row, other) for row in table.values()}) == len(table)
  partitioning.parameter_shardings(
    model, params, partitioning.make_mesh(model=2)
  )


def test_norms_begin_at_one_with_their_offset():
  norm = layers.RMSNorm(1e-6, "float32", offset=1.0)
  params = norm.init(jax.random.key(0), np.ones(3))["params"]
  np.testing.assert_array_equal(params["scale"], np.zeros(3))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_survives_json(name):
  config = build(name)[0].config
  assert registry.family_of(config) == registry.DECODER_ONLY


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"num_kv_heads": 3}, "num_kv_heads is 3; expected a divisor of num_heads"),
    ({"head_dim": 5}, "head_dim is 5; expected an even number"),
    ({"mlp_activations": "silu"}, r"\('silu',\); expected two, such as"),
    ({"rope_theta": 0}, "rope_theta is 0; expected a number above 1"),
    ({"num_layers": 0}, "num_layers is 0; expected a positive integer"),
    ({"eos_ids": (40,)}, r"eos_ids is \(40,\); expected ids below vocab_size"),
    (
      {"rope_scaling": {"kind": "llama3", "factor": 2.0}},
      "'llama3' with all its fields",
    ),
    (
      {
        "rope_scaling": dataclasses.asdict(LLAMA3) | {"low_frequency_factor": 2}
      },
      "high_frequency_factor above low_frequency_factor",
    ),
    ({"rope_scaling": {"kind": "yarn", "factor": 2.0}}, "expected kind 'linea"),
    (
      {"rope_scaling": {"kind": "linear", "factor": 0}},
      "factor is 0; expected",
    ),
    (
      {"gemma": dataclasses.asdict(GEMMA) | {"global_every": 0}},
      "a global_every of at least 1",
    ),
    ({"sliding_window": 0}, "sliding_window is 0; expected a positive integer"),
    (
      {"sliding_window": 3, "gemma": dataclasses.asdict(GEMMA)},
      "or None as of any Gemma",
    ),
    ({"gemma": {"window": 3}}, "unexpected keyword argument 'window'"),
    ({"gemma": 5}, "'int' object has no attribute 'local_rope_theta'; correct"),
    ({"rope_scaling": 3}, "'int' object has no attribute 'factor'; correct it"),
    (
      {"gemma": dataclasses.asdict(GEMMA) | {"query_scale": "x"}},
      "gemma.query_scale is 'x'; expected a positive number",
    ),
  ],
)
def test_what_makes_no_model_is_refused(change, message):
  with pytest.raises(UserError, match=message):
    registry.config_of(registry.DECODER_ONLY, TINY | change)


def reference(config, params, tokens):
  """Logits [S, V] in float64 of one row of tokens [S], head by head."""
  p = {name: np.float64(leaf) for name, leaf in trees.flatten(params).items()}
  gemma, size = config.gemma, len(tokens)
  windows = {False: config.sliding_window, True: gemma and gemma.sliding_window}
  offset = gemma.norm_offset if gemma else 0

  def norm(x, name):
    root = np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + config.norm_epsilon)
    return x / root * (p[f"{name}/scale"] + offset)

  def project(x, name, heads):
    joined = x @ p[f"{name}/kernel"]
    if config.qkv_bias:
      joined = joined + p[f"{name}/bias"]
    return joined.reshape(size, heads, config.head_dim)

  x = p["token_embedder/embedding"][tokens]
  x = x * gemma.embedding_scale if gemma else x
  for i in range(config.num_layers):
    layer, is_local = f"decoder/layers_{i}", bool(gemma) and i % 2 == 0
    attention, h = (
      f"{layer}/self_attention",
      norm(x, f"{layer}/pre_self_attention_norm"),
    )
    turns = _turns(config, size, is_local)
    q = project(h, f"{attention}/query", config.num_heads)
    k = project(h, f"{attention}/key", config.num_kv_heads)
    v = project(h, f"{attention}/value", config.num_kv_heads)
    q = _turned(norm(q, f"{attention}/query_norm"), turns)
    k = _turned(norm(k, f"{attention}/key_norm"), turns)
    mixed = np.zeros(q.shape)
    scale = gemma.query_scale if gemma else 1 / np.sqrt(config.head_dim)
    for head, to in itertools.product(range(config.num_heads), range(size)):
      first = max(0, to + 1 - (windows[is_local] or size))
      group = head // (config.num_heads // config.num_kv_heads)
      seen = slice(first, to + 1)
      weights = np.exp(k[seen, group] @ q[to, head] * scale)
      mixed[to, head] = weights @ v[seen, group] / weights.sum()
    h = mixed.reshape(size, -1) @ p[f"{attention}/out/kernel"]
    x = x + (norm(h, f"{layer}/post_self_attention_norm") if gemma else h)
    h = norm(x, f"{layer}/pre_mlp_norm")
    gate = h @ p[f"{layer}/mlp/wi_0/kernel"]
    if gemma:
      inner = np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)
      gate = gate * (1 + np.tanh(inner)) / 2
    else:
      gate = gate / (1 + np.exp(-gate))
    h = gate * (h @ p[f"{layer}/mlp/wi_1/kernel"])
    h = h @ p[f"{layer}/mlp/wo/kernel"]
    x = x + (norm(h, f"{layer}/post_mlp_norm") if gemma else h)
  x = norm(x, "decoder/decoder_norm")
  if config.logits_via_embedding:
    return x @ p["token_embedder/embedding"].T
  return x @ p["decoder/logits_dense/kernel"]


def _turns(config, size, is_local):
  """[S, K/2] unit complex numbers, by the definitions of each scaling."""
  theta, scaling = config.rope_theta, config.rope_scaling
  if is_local:
    theta, scaling = config.gemma.local_rope_theta, None
  speeds = []
  for pair in range(config.head_dim // 2):
    speed = theta ** (-2 * pair / config.head_dim)
    if scaling and scaling.kind == "linear":
      speed /= scaling.factor
    elif scaling:
      length, wave = scaling.original_length, 2 * np.pi / speed
      low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
      if wave > length / low:
        speed /= scaling.factor
      elif wave > length / high:
        share = (length / wave - low) / (high - low)
        speed *= share + (1 - share) / scaling.factor
    speeds.append(speed)
  return np.exp(1j * np.outer(np.arange(size), speeds))


def _turned(x, turns):
  """[S, H, K] whose halves are the parts of complex numbers, turned."""
  real, imaginary = np.split(x, 2, axis=-1)
  z = (real + 1j * imaginary) * turns[:, None]
  return np.concatenate([z.real, z.imag], axis=-1)
