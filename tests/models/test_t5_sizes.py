"""The published sizes in configs/models/sizes, by name, shape and count."""

import jax
import numpy as np
import pytest

from gkd import trees
from gkd.config import configuration
from gkd.config import gin_table
from gkd.models import sizes
from gkd.models import t5

# Family: rows of the table, real ids, activations, tied head, bias per layer.
# The T5X gin files that each header in configs/models/sizes names; for UL2 the
# config of google/ul2.
T5 = (32128, 32100)
FAMILIES = {
  "T5_1_0": (*T5, ("relu",), True, False),
  "T5_1_1": (*T5, ("gelu", "linear"), False, False),
  "MT5": (250112, 250100, ("gelu", "linear"), False, False),
  "UMT5": (256384, 256300, ("gelu", "linear"), False, True),
  "BYT5": (384, 384, ("gelu", "linear"), False, False),
  "UL2": (*T5, ("silu", "linear"), False, False),
}
# Width, heads, size of a head, width of the MLP, layers of encoder and decoder.
GATED = {
  "SMALL": (512, 6, 64, 1024, 8, 8),
  "BASE": (768, 12, 64, 2048, 12, 12),
  "LARGE": (1024, 16, 64, 2816, 24, 24),
  "XL": (2048, 32, 64, 5120, 24, 24),
  "XXL": (4096, 64, 64, 10240, 24, 24),
}
SIZES = {
  "T5_1_0": {
    "SMALL": (512, 8, 64, 2048, 6, 6),
    "BASE": (768, 12, 64, 3072, 12, 12),
    "LARGE": (1024, 16, 64, 4096, 24, 24),
    "3B": (1024, 32, 128, 16384, 24, 24),
    "11B": (1024, 128, 128, 65536, 24, 24),
  },
  "T5_1_1": GATED,
  "MT5": GATED,
  "UMT5": {name: size for name, size in GATED.items() if name != "LARGE"},
  "BYT5": {
    "SMALL": (1472, 6, 64, 3584, 12, 4),
    "BASE": (1536, 12, 64, 3968, 18, 6),
    "LARGE": (1536, 16, 64, 3840, 36, 12),
    "XL": (2560, 32, 64, 6720, 36, 12),
    "XXL": (4672, 64, 64, 12352, 36, 12),
  },
  "UL2": {"20B": (4096, 16, 256, 16384, 32, 32)},
}
NAMES = [(family, name) for family, named in SIZES.items() for name in named]
# Tracing takes a second a model: every size of T5, the largest of the others,
# which differ only in numbers.
TRACED = [
  (family, name)
  for family, name in NAMES
  if family.startswith("T5") or name == list(SIZES[family])[-1]
]
# Same numbers under names of their own.
ALIASES = {
  "T5_1_1_LM100K": "T5_1_1",
  "FLAN_T5": "T5_1_1",
  "MT5_LM_ADAPTED": "MT5",
  "FLAN_UL2": "UL2",
}
# To the last parameter, as transformers counts the models of the Hub.
EXACT = {
  "T5_1_0_SMALL": 60_506_624,  # google-t5/t5-*
  "T5_1_0_BASE": 222_903_552,
  "T5_1_0_LARGE": 737_668_096,
  "T5_1_0_3B": 2_851_598_336,
  "T5_1_0_11B": 11_307_321_344,
  "T5_1_1_SMALL": 76_961_152,  # google/t5-v1_1-*, google/flan-t5-*
  "T5_1_1_BASE": 247_577_856,
  "T5_1_1_LARGE": 783_150_080,
  "T5_1_1_XL": 2_849_757_184,
  "T5_1_1_XXL": 11_135_332_352,
  "MT5_SMALL": 300_176_768,  # google/mt5-*
  "MT5_BASE": 582_401_280,
}
# To three digits: ByT5 (arXiv:2105.13626), table 1, for mT5 and ByT5 alike; the
# Hub's page of umT5 small.
ROUNDED = {
  f"{family}_{name}": count
  for family in ("MT5", "BYT5")
  for name, count in zip(
    GATED, ("300M", "582M", "1.23B", "3.74B", "12.9B"), strict=True
  )
} | {"UMT5_SMALL": "307M"}


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
  """{macro: its T5Config}, all from one reading of the files."""
  file = tmp_path_factory.mktemp("sizes") / "all.gin"
  names = [f"{family}_{name}" for family, name in NAMES] + [
    f"{alias}_{name}"
    for alias, family in ALIASES.items()
    for name in SIZES[family]
  ]
  bindings = [f"{n}/t5.T5Config.from_size.size = %{n}" for n in names]
  header = [
    "from __gin__ import dynamic_registration",
    "from gkd.models import t5",
    "include 'models/t5.gin'",
  ]
  file.write_text("\n".join([*header, *bindings]))
  configuration.load([str(file)], [])
  return {
    name: configuration.build(t5.T5Config.from_size, scope=name)
    for name in names
  }


def count_of(family, name):
  """Parameters of a size by hand."""
  rows, _, activations, tied, per_layer = FAMILIES[family]
  width, heads, head_dim, mlp, encoder, decoder = SIZES[family][name]
  attention = 4 * width * heads * head_dim
  feed_forward = (len(activations) + 1) * width * mlp
  table = 32 * heads
  stacks = np.array([encoder, decoder])
  layer = np.array(
    [attention + feed_forward + 2 * width]
    + [2 * attention + feed_forward + 3 * width]
  )
  tables = table * (stacks if per_layer else np.ones(2, np.int64))
  embeddings = rows * width * (1 if tied else 2)
  return int((stacks * layer + tables + width).sum()) + embeddings


def rounded(count):
  unit, letter = (10**9, "B") if count >= 10**9 else (10**6, "M")
  return f"{count / unit:.3g}{letter}"


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_sizes_are_the_published_ones(configs, family, name):
  full = f"{family}_{name}"
  config = configs[full]
  rows, ids, activations, tied, per_layer = FAMILIES[family]
  assert (config.vocab_size, config.vocabulary_size) == (rows, ids)
  assert config.mlp_activations == activations
  assert config.logits_via_embedding is tied
  assert config.bias_per_layer is per_layer
  assert SIZES[family][name] == (
    config.emb_dim,
    config.num_heads,
    config.head_dim,
    config.mlp_dim,
    config.num_encoder_layers,
    config.num_decoder_layers,
  )
  # What a checkpoint without a config file is taken for.
  assert sizes.known_vocabulary_size(rows) == ids
  count = count_of(family, name)
  assert count == EXACT.get(full, count)
  assert rounded(count) == ROUNDED.get(full, rounded(count))


@pytest.mark.parametrize(("family", "name"), TRACED)
def test_models_have_the_number_of_parameters(configs, family, name):
  model = t5.encoder_decoder(configs[f"{family}_{name}"])
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  assert trees.num_parameters(shapes) == count_of(family, name)


@pytest.mark.parametrize("alias", ALIASES)
def test_descendants_have_the_sizes_of_their_parents(configs, alias):
  family = ALIASES[alias]
  for name in SIZES[family]:
    assert configs[f"{alias}_{name}"] == configs[f"{family}_{name}"]


def test_each_size_has_a_file_and_each_file_is_tested(configs):
  folder = configuration.config_folder() / "models" / "sizes"
  found = [gin_table.macros_of(path) for path in sorted(folder.glob("*/*.gin"))]
  assert {len(names) for names in found} == {1}
  assert {names[0] for names in found} == set(configs)
  assert set(EXACT) | set(ROUNDED) <= set(configs)
