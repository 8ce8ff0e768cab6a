"""Families and sizes in words, as the papers and model cards call them."""

import pytest

from gkd.models import sizes
from gkd.models.t5 import T5Config
from tests.checkpoints import tiny_models

GATED = {"mlp_activations": ("gelu", "linear")}
# Google's numbers: T5 paper, T5X's models.md, ByT5 and UL2 papers; the counts
# of 1.0 and 1.1 are those of docs/models.md.
PUBLISHED = [
  ("T5 1.1 small (76.96M", 32128, 512, 6, 8, 8, 1024, GATED),
  ("T5 1.1 base (247.58M", 32128, 768, 12, 12, 12, 2048, GATED),
  ("T5 1.1 large (783.15M", 32128, 1024, 16, 24, 24, 2816, GATED),
  ("T5 1.1 xl (2.850B", 32128, 2048, 32, 24, 24, 5120, GATED),
  ("T5 1.1 xxl (11.135B", 32128, 4096, 64, 24, 24, 10240, GATED),
  ("T5 1.0 small (60.51M", 32128, 512, 8, 6, 6, 2048, {}),
  ("T5 1.0 base (222.90M", 32128, 768, 12, 12, 12, 3072, {}),
  ("T5 1.0 large (737.67M", 32128, 1024, 16, 24, 24, 4096, {}),
  ("mT5 small (300.18M", 250112, 512, 6, 8, 8, 1024, GATED),
  ("ByT5 small (299.64M", 384, 1472, 6, 12, 4, 3584, GATED),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row[0])
def test_published_models_have_their_names(row):
  words, vocab, width, heads, encoder, decoder, mlp, options = row
  tied = {} if options else {"logits_via_embedding": True}
  config = T5Config(
    vocab_size=vocab,
    emb_dim=width,
    num_heads=heads,
    num_encoder_layers=encoder,
    num_decoder_layers=decoder,
    head_dim=64,
    mlp_dim=mlp,
    **options,
    **tied,
  )
  assert sizes.describe(config) == f"{words} parameters)"


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
def test_other_sizes_are_told_by_their_numbers(changes, family):
  config = T5Config.from_size({**tiny_models.SIZE, **changes})
  assert sizes.describe(config).startswith(family)


def test_numbers_are_short():
  counts = (999, 51_710, 76_961_152, 11_135_332_352)
  words = ["999", "51.71k", "76.96M", "11.135B"]
  assert [sizes.short_number(count) for count in counts] == words
