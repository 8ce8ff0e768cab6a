"""The published sizes by name, shape and count, and configs in words."""

import numpy as np
import pytest

from gkd.models import registry
from gkd.models import sizes
from gkd.models.t5 import T5Config
from gkd.types import UserError
from tests.checkpoints import tiny_models

# To the last parameter, as transformers counts the models of the Hub; to three
# digits where a paper says so: ByT5 (arXiv:2105.13626), table 1, for mT5 and
# ByT5; the Hub's page of umT5 small.
PUBLISHED = {
  "T5_1_0_SMALL": (60_506_624, "T5 1.0 small (60.51M"),  # google-t5/t5-*
  "T5_1_0_BASE": (222_903_552, "T5 1.0 base (222.90M"),
  "T5_1_0_LARGE": (737_668_096, "T5 1.0 large (737.67M"),
  "T5_1_0_3B": (2_851_598_336, "T5 1.0 3B (2.852B"),
  "T5_1_0_11B": (11_307_321_344, "T5 1.0 11B (11.307B"),
  "T5_1_1_SMALL": (76_961_152, "T5 1.1 small (76.96M"),  # google/t5-v1_1-*
  "T5_1_1_BASE": (247_577_856, "T5 1.1 base (247.58M"),
  "T5_1_1_LARGE": (783_150_080, "T5 1.1 large (783.15M"),
  "T5_1_1_XL": (2_849_757_184, "T5 1.1 xl (2.850B"),
  "T5_1_1_XXL": (11_135_332_352, "T5 1.1 xxl (11.135B"),
  "FLAN_T5_SMALL": (76_961_152, "T5 1.1 small (76.96M"),
  "T5_1_1_LM100K_XL": (2_849_757_184, "T5 1.1 xl (2.850B"),
  "MT5_SMALL": (300_176_768, "mT5 small (300.18M"),  # google/mt5-*
  "MT5_BASE": (582_401_280, "mT5 base (582.40M"),
  "MT5_LARGE": ("1.23B", "mT5 large (1.230B"),
  "MT5_XL": ("3.74B", "mT5 xl (3.743B"),
  "MT5_LM_ADAPTED_XXL": ("12.9B", "mT5 xxl (12.921B"),
  "BYT5_SMALL": ("300M", "ByT5 small (299.64M"),
  "BYT5_BASE": ("582M", "ByT5 base (581.65M"),
  "BYT5_LARGE": ("1.23B", "ByT5 large ("),
  "BYT5_XL": ("3.74B", "ByT5 xl ("),
  "BYT5_XXL": ("12.9B", "ByT5 xxl ("),
  "UMT5_SMALL": ("307M", "umT5 (a bias per layer) small (306.60M"),
}


def count_of(config):
  """Parameters by hand."""
  width = config.emb_dim
  attention = 4 * width * config.num_heads * config.head_dim
  mlp = (len(config.mlp_activations) + 1) * width * config.mlp_dim
  stacks = np.array([config.num_encoder_layers, config.num_decoder_layers])
  layer = np.array([attention + 2 * width, 2 * attention + 3 * width]) + mlp
  biases = stacks if config.bias_per_layer else np.ones(2, np.int64)
  tables = config.relative_buckets * config.num_heads * biases
  embeddings = config.vocab_size * width * (2 - config.logits_via_embedding)
  return int((stacks * layer + tables + width).sum()) + embeddings


@pytest.mark.parametrize("name", sizes.NAMES)
def test_sizes_have_the_published_numbers_of_parameters(name):
  config = T5Config.from_size(name)
  count = registry.num_parameters(config)
  assert count == count_of(config)
  published, words = PUBLISHED.get(name, (count, ""))
  unit, letter = (1e9, "B") if count >= 1e9 else (1e6, "M")
  assert published in (count, f"{count / unit:.3g}{letter}")
  assert sizes.describe(config).startswith(words)
  # What a checkpoint without a config file is taken for.
  rows, real = config.vocab_size, config.vocabulary_size
  assert sizes.known_vocabulary_size(rows) == real


def test_names_are_those_of_the_gin_files_and_all_published_ones_are_there():
  assert set(PUBLISHED) <= set(sizes.NAMES)
  assert len(sizes.NAMES) == 43
  with pytest.raises(UserError, match="no model size 'T5_SMAL'; did you"):
    T5Config.from_size("T5_SMAL")
  config = T5Config.from_size("T5_1_1_SMALL", dropout_rate=0.0)
  assert (config.vocab_size, config.dropout_rate) == (32128, 0.0)


@pytest.mark.parametrize(
  ("changes", "family"),
  [
    ({}, "T5 1.1 of width 16, 2 + 3 layers, 3 heads of 4, MLP 24 ("),
    ({"mlp_activations": ("silu", "linear")}, "UL2-style T5 (gated SiLU) of"),
    ({"bias_per_layer": True}, "umT5-style T5 (a bias per layer) of width"),
    ({"logits_via_embedding": True}, "T5 with tied embeddings and gelu·linear"),
    ({"mlp_activations": "relu"}, "T5 with its own head and relu of width 16"),
  ],
)
def test_other_sizes_are_described_by_their_numbers(changes, family):
  config = T5Config.from_size({**tiny_models.SIZE, **changes})
  assert sizes.describe(config).startswith(family)


def test_numbers_are_short():
  counts = (999, 51_710, 76_961_152, 11_135_332_352)
  words = ["999", "51.71k", "76.96M", "11.135B"]
  assert [sizes.short_number(count) for count in counts] == words
