"""Small T5Gemmas of random arrays, and a batch for them."""

import dataclasses

import numpy as np

from gkd.models import t5gemma_params
from gkd.models.t5gemma import Side
from gkd.models.t5gemma import T5GemmaConfig
from tests.checkpoints import tiny_models

SIDE = Side(
  emb_dim=24,
  num_layers=4,
  num_heads=6,
  num_kv_heads=2,
  head_dim=8,
  mlp_dim=40,
  query_scale=12**-0.5,
  sliding_window=4,  # shorter than prompts and answers
  rope_theta=100.0,
  norm_epsilon=1e-5,
)
SMALL = dataclasses.replace(
  SIDE, emb_dim=16, num_layers=3, num_heads=4, head_dim=4, global_every=3
)
BENT = dataclasses.replace(SIDE, attention_cap=2.0)
PLAIN = dataclasses.replace(SIDE, attention_cap=None, global_every=1)
# Encoder, decoder, options.
CASES = {
  "balanced": (SIDE, SIDE, {}),
  "caps that bend": (BENT, BENT, {"logit_cap": 2.0}),
  "no caps, all global": (PLAIN, PLAIN, {"logit_cap": None}),
  "unbalanced": (BENT, SMALL, {}),
  "untied": (SMALL, SIDE, {"logits_via_embedding": False}),
}
ENDS = tuple(range(7, 61, 5))


def config_of(case, **changes) -> T5GemmaConfig:
  encoder, decoder, options = CASES[case]
  fields = {"vocab_size": 61, "eos_ids": ENDS}
  fields |= {"encoder": encoder, "decoder": decoder, **options, **changes}
  return T5GemmaConfig(**fields)


def arrays(case) -> dict[str, np.ndarray]:
  """{name: array}, of which norms, windows and caps matter."""
  random, made = np.random.RandomState(len(case)), {}
  for path, row in t5gemma_params.table(config_of(case)).items():
    weight = random.normal(size=row.shape)
    if path.endswith("kernel"):
      weight *= 1.5 / np.sqrt(len(weight))
    else:  # small embeddings, lest a token repeats itself for ever
      weight *= 0.2 if path.endswith("scale") else 0.05
    made[path] = weight.astype(np.float32)
  return made


def batch(num_rows=20):
  """Prompts of 1 to 15 tokens, their mask, any filler, and targets."""
  random = np.random.RandomState(5)
  ids = random.randint(0, 61, (num_rows, 15)).astype(np.int32)
  lengths = np.linspace(15, 1, num_rows).astype(int)
  # Without 0, which transformers masks among the targets.
  targets = random.randint(1, 61, (num_rows, 9)).astype(np.int32)
  return ids, np.arange(15) < lengths[:, None], targets


def save(folder, case, to="hf"):
  """A folder of a case, by default as transformers has it."""
  made = dataclasses.replace(
    tiny_models.make(),
    config=config_of(case),
    family="t5gemma",
    leaves=tiny_models.as_leaves(arrays(case)),
  )
  return tiny_models.save(folder, made, to)
