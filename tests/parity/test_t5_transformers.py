"""Random T5s against transformers, live: `make parity`."""

import runpy
import types

import jax
import numpy as np
import pytest

from gkd import trees
from gkd.models import t5

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def reference(golden):
  """The functions of golden/transformers/make.py."""
  pytest.importorskip("torch", reason="parity needs torch: make parity")
  pytest.importorskip(
    "transformers", reason="parity needs transformers: make parity"
  )
  path = golden / "transformers" / "make.py"
  return types.SimpleNamespace(**runpy.run_path(str(path)))


def random_options(seed: int):
  """Fields of a T5Config: any family, odd sizes."""
  random = np.random.RandomState(seed)
  family = seed % 4
  options = {
    "vocab_size": int(random.randint(20, 90)),
    "emb_dim": int(random.randint(5, 40)),
    "num_heads": int(random.randint(1, 6)),
    "num_encoder_layers": int(random.randint(1, 4)),
    "num_decoder_layers": int(random.randint(1, 4)),
    "head_dim": int(random.randint(2, 12)),
    "mlp_dim": int(random.randint(3, 50)),
    "mlp_activations": (
      ("relu",),
      ("gelu", "linear"),
      ("silu", "linear"),
      ("gelu", "linear"),
    )[family],
    "logits_via_embedding": family == 0 or (family == 2 and seed > 4),
    "bias_per_layer": family == 3,
  }
  if seed > 3:
    options["relative_buckets"] = 2 * int(random.randint(2, 12))
    # Not a whole multiple of any start of a bucket: transformers computes
    # boundaries in float32, T5X and this project in higher precision.
    options["relative_max_distance"] = int(random.choice([29, 37, 53]))
  return options


@pytest.mark.parametrize("seed", range(8))
def test_logits_of_a_random_config_equal_transformers(reference, seed):
  options = random_options(seed)
  weights, theirs = reference.make_model(options, seed)
  inputs, targets = reference.make_batch(options["vocab_size"], seed)
  want = reference.teacher_forced(theirs, inputs, targets)

  ours = t5.encoder_decoder(t5.T5Config.from_size(options))
  params = trees.unflatten(
    {path: array.astype(np.float32) for path, array in weights.items()}
  )
  got = np.asarray(jax.jit(ours.logits)(params, inputs, targets))
  real = targets > 0
  np.testing.assert_allclose(got[real], want[real], atol=1e-5)


@pytest.mark.parametrize("name", ["t5_1_0", "t5_1_1", "umt5"])
def test_golden_files_are_what_transformers_says_today(reference, golden, name):
  seed = list(reference.CASES).index(name)
  _, model = reference.make_model(reference.CASES[name], seed)
  with np.load(golden / "transformers" / f"{name}.npz") as want:
    logits = reference.teacher_forced(model, want["inputs"], want["targets"])
    np.testing.assert_allclose(logits, want["logits"], atol=1e-5)
    greedy = reference.greedy(model, want["inputs"], 16)
    np.testing.assert_array_equal(greedy, want["greedy"])
