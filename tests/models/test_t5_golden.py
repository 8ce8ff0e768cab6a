"""Logits, initial values and trees against outputs of T5X (golden/t5x)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import trees
from gkd.models import t5
from gkd.types import Pair
from tests.golden_t5x import GATED
from tests.golden_t5x import MODELS
from tests.golden_t5x import RELU
from tests.golden_t5x import SIZE
from tests.golden_t5x import checkpoint_target
from tests.golden_t5x import load


def logits_on(model, params, batch) -> jax.Array:
  segments = None
  if "encoder_segment_ids" in batch:
    segments = Pair(batch["encoder_segment_ids"], batch["decoder_segment_ids"])
  # T5X masks by `decoder_target_tokens` and feeds `decoder_input_tokens`; the
  # model makes the latter from the former.
  return jax.jit(model.logits)(
    params,
    batch["encoder_input_tokens"],
    batch["decoder_target_tokens"],
    segments=segments,
  )


def assert_equal(model, params, batch, want):
  """Logits of the positions that count."""
  counts = batch["decoder_loss_weights"] == 1
  got = np.asarray(logits_on(model, trees.unflatten(params), batch))
  np.testing.assert_allclose(got[counts], want["logits"][counts], atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
  ("outputs", "batch", "params"),
  [
    ("forward_start", "batch", "params_start.npz"),
    ("forward_start_packed", "packed_batch", "params_start.npz"),
    ("forward_end10", "batch", "legacy_checkpoint_10.tar.gz"),
  ],
)
def test_logits_equal_t5x(golden, name, outputs, batch, params):
  folder = golden / "t5x" / name
  read = load if params.endswith("npz") else checkpoint_target
  assert_equal(
    t5.encoder_decoder(t5.T5Config(**SIZE, **MODELS[name][0])),
    read(folder / params),
    load(golden / "t5x" / f"{batch}.npz"),
    load(folder / f"{outputs}.npz"),
  )


def test_bfloat16_is_close_to_float32(golden):
  """Where the head is the embedding; transformers shows the other one."""
  folder = golden / "t5x" / "t5_1_0_tiny"
  model = t5.encoder_decoder(t5.T5Config(**SIZE, **RELU, dtype="bfloat16"))
  params = trees.unflatten(load(folder / "params_start.npz"))
  batch = load(golden / "t5x" / "batch.npz")
  want = load(folder / "forward_start.npz")["logits"]

  counts = batch["decoder_loss_weights"] == 1
  got = logits_on(model, params, batch)
  assert got.dtype == jnp.float32
  # 8 bits of mantissa over some ten roundings of values around 1.
  error = np.abs(np.asarray(got) - want)[counts]
  assert 1e-4 < error.mean() < 0.02
  assert error.max() < 0.15


def test_a_bias_per_layer_equals_t5x_scanned(golden):
  folder = golden / "t5x" / "t5_1_1_scan_tiny"
  scanned = checkpoint_target(folder / "legacy_checkpoint_0.tar.gz")
  named = {}
  for name, array in scanned.items():
    stack, _, rest = name.partition("/")
    if not rest.startswith(stack + "/"):
      named[name] = array
      continue
    rest = rest.removeprefix(stack + "/")
    for i in range(2):
      layer = array.take(i, axis=1)
      if "attention" in rest and rest.endswith("kernel"):
        # T5X keeps heads apart when it scans: (emb, heads, size) or its mirror.
        is_out = rest.endswith("out/kernel")
        layer = layer.reshape((-1, 32) if is_out else (32, -1))
      named[f"{stack}/layers_{i}/{rest}"] = layer
  config = t5.T5Config(**SIZE, **GATED, bias_per_layer=True)
  batch = load(golden / "t5x" / "batch.npz")
  want = load(folder / "forward_start.npz")
  assert_equal(t5.encoder_decoder(config), named, batch, want)


@pytest.mark.parametrize("name", MODELS)
def test_initial_values_equal_t5x(golden, name):
  options, seed = MODELS[name]
  model = t5.encoder_decoder(t5.T5Config(**SIZE, **options))
  want = load(golden / "t5x" / name / "params_start.npz")
  got = trees.flatten(jax.jit(model.init)(jax.random.key(seed)))
  assert list(got) == sorted(want)
  for path, array in got.items():
    assert array.dtype == jnp.float32
    # The fixtures' scales were perturbed after init; T5X starts them at 1.
    expected = np.ones(32) if path.endswith("scale") else want[path]
    np.testing.assert_allclose(array, expected, atol=2e-7, err_msg=path)
