"""Random decoder-only models against transformers, live: `make parity`."""

import functools
import math
import types

import jax
import numpy as np
import pytest

from gkd import keys
from gkd import trees
from gkd.models import decoder_only
from gkd.models import decoder_params
from gkd.models.decoder_only import DecoderConfig
from gkd.models.decoder_only import Gemma
from gkd.models.decoder_only import RopeScaling
from gkd.sampling.generate import generate
from gkd.sampling.params import SamplingParams
from gkd.types import Batch
from gkd.types import Model

pytestmark = pytest.mark.parity

SIZE = {
  "vocab_size": 61,
  "emb_dim": 24,
  "num_layers": 3,
  "num_heads": 6,
  "num_kv_heads": 2,
  "head_dim": 8,
  "mlp_dim": 40,
  "norm_epsilon": 1e-5,
  "eos_ids": (7, 11, 13),  # about every twentieth token
  "pad_id": 7,
}
LLAMA3 = RopeScaling(
  kind="llama3",
  factor=8.0,
  low_frequency_factor=1.0,
  high_frequency_factor=4.0,
  original_length=16,
)
GEMMA = Gemma(
  post_norms=True,
  embedding_scale=math.sqrt(SIZE["emb_dim"]),
  norm_offset=1.0,
  query_scale=12**-0.5,
  sliding_window=5,  # shorter than the prompts
  global_every=3,
  local_rope_theta=100.0,
)
LINEAR = RopeScaling(kind="linear", factor=4.0)
# transformers' class, and what differs from SIZE.
CASES = {
  "llama": ("Llama", {"head_dim": 4, "num_kv_heads": 6}),
  "llama tied": ("Llama", {"logits_via_embedding": True}),
  "llama 3": ("Llama", {"rope_scaling": LLAMA3, "rope_theta": 500.0}),
  "llama linear": ("Llama", {"rope_scaling": LINEAR}),
  "mistral": ("Mistral", {"num_kv_heads": 1}),
  "mistral 7B 0.1": ("Mistral", {"sliding_window": 5}),
  "qwen 2.5": ("Qwen2", {"qkv_bias": True, "rope_theta": 1e6}),
  "qwen 3": ("Qwen3", {"qk_norm": True, "logits_via_embedding": True}),
  "gemma 3": (
    "Gemma3Text",
    {
      "qk_norm": True,
      "logits_via_embedding": True,
      "mlp_activations": ("gelu", "linear"),
      "rope_scaling": LINEAR,
      "gemma": GEMMA,
    },
  ),
}
NUM_ROWS, INPUT_LENGTH, TARGET_LENGTH = 13, 19, 8


@pytest.fixture(scope="module")
def pair(torch, transformers):
  """Of a case: our model, its parameters, theirs; made once."""

  @functools.cache
  def make(case):
    name, changes = CASES[case]
    ours = decoder_only.decoder_only(DecoderConfig(**SIZE | changes))
    prefix = name.removesuffix("Text")
    kind = getattr(transformers, f"{name}Config")
    config = kind(**_their_fields(ours.config), attn_implementation="eager")
    theirs = getattr(transformers, f"{prefix}ForCausalLM")(config).eval()
    random = np.random.RandomState(len(case))
    params, state = {}, {}
    for path, row in decoder_params.table(ours.config).items():
      weight = random.normal(size=row.shape).astype(np.float32)
      if path.endswith("kernel"):
        weight *= 1.5 / np.sqrt(len(weight))
      elif path.endswith("scale"):
        offset = changes["gemma"].norm_offset if "gemma" in changes else 0
        weight = 1 - offset + 0.2 * weight
      params[path] = weight
      other = weight.T if row.hf_transposed else weight
      state[row.hf_name] = torch.tensor(np.ascontiguousarray(other))
    missing = theirs.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"lm_head.weight"}
    return ours, trees.unflatten(params), theirs

  return make


def _their_fields(config):
  rope = _rope(config.rope_theta, config.rope_scaling)
  fields = {
    "vocab_size": config.vocab_size,
    "hidden_size": config.emb_dim,
    "intermediate_size": config.mlp_dim,
    "num_hidden_layers": config.num_layers,
    "num_attention_heads": config.num_heads,
    "num_key_value_heads": config.num_kv_heads,
    "head_dim": config.head_dim,
    "rms_norm_eps": config.norm_epsilon,
    "tie_word_embeddings": config.logits_via_embedding,
    "max_position_embeddings": 64,
    "rope_parameters": rope,
    "eos_token_id": list(config.eos_ids),
    "bos_token_id": None,
    "pad_token_id": config.pad_id,
  }
  if gemma := config.gemma:
    fields |= {
      "query_pre_attn_scalar": round(gemma.query_scale**-2),
      "sliding_window": gemma.sliding_window,
      "sliding_window_pattern": gemma.global_every,
      "rope_parameters": {
        "full_attention": rope,
        "sliding_attention": _rope(gemma.local_rope_theta, None),
      },
    }
  elif not config.qkv_bias:  # Qwen2's is off by itself
    fields["sliding_window"] = config.sliding_window  # Mistral's
  return fields


def _rope(theta, scaling):
  fields = {"rope_theta": theta, "rope_type": "default"}
  if scaling is None:
    return fields
  fields |= {"rope_type": scaling.kind, "factor": scaling.factor}
  if scaling.kind == "llama3":
    fields |= {
      "low_freq_factor": scaling.low_frequency_factor,
      "high_freq_factor": scaling.high_frequency_factor,
      "original_max_position_embeddings": scaling.original_length,
    }
  return fields


def _prompts():
  """Ids, 0 among them, and lengths of 1 to INPUT_LENGTH; and targets."""
  random = np.random.RandomState(5)
  ids = random.randint(0, SIZE["vocab_size"], (NUM_ROWS, INPUT_LENGTH))
  ids[:, 2] = 0
  lengths = np.linspace(1, INPUT_LENGTH, NUM_ROWS).astype(int)
  mask = np.arange(INPUT_LENGTH) < lengths[:, None]
  targets = random.randint(0, SIZE["vocab_size"], (NUM_ROWS, TARGET_LENGTH))
  return ids, mask, targets


def _left_padded(torch, ids, mask, targets=()):
  """What transformers takes: the padding before the prompt."""
  rows = np.zeros((NUM_ROWS, INPUT_LENGTH), int)
  for row, one, real in zip(rows, ids, mask, strict=True):
    row[INPUT_LENGTH - real.sum() :] = one[real]
  real = mask[:, ::-1]
  if len(targets):
    rows = np.concatenate([rows, targets], axis=1)
    real = np.concatenate([real, np.ones(targets.shape, bool)], axis=1)
  return {
    "input_ids": torch.tensor(rows),
    "attention_mask": torch.tensor(real.astype(int)),
  }


def _teacher_forced(torch, theirs, ids, mask, targets):
  batch = _left_padded(torch, ids, mask, targets)
  positions = batch["attention_mask"].cumsum(-1) - 1
  with torch.no_grad():
    logits = theirs(**batch, position_ids=positions.clamp(min=0)).logits
  return logits[:, INPUT_LENGTH - 1 : -1].float().numpy()


@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_answers_equal_transformers(torch, pair, case):
  ours, params, theirs = pair(case)
  ids, mask, targets = _prompts()
  want = _teacher_forced(torch, theirs, ids, mask, targets)
  got = jax.jit(ours.logits)(params, ids, targets, input_mask=mask)
  np.testing.assert_allclose(got, want, atol=1e-4 * np.ptp(want))

  fields = {"targets": targets, "weights": np.ones(targets.shape), "source": 0}
  batch = Batch(ids, mask, rows=np.arange(NUM_ROWS), **fields)
  vocabulary = types.SimpleNamespace(
    eos_ids=ours.config.eos_ids, pad_id=ours.config.pad_id, control_ids=()
  )
  samples = generate(
    Model(ours, params),
    batch,
    keys.stream(0, 0, keys.Role.OFFLINE_SAMPLE),
    SamplingParams(temperature=0.0),
    max_length=TARGET_LENGTH,
    vocabulary=vocabulary,
  )
  answers = theirs.generate(
    **_left_padded(torch, ids, mask),
    do_sample=False,
    max_new_tokens=TARGET_LENGTH,
  ).numpy()[:, INPUT_LENGTH:]
  for row, answer in enumerate(answers):
    length = int(samples.lengths[row])
    np.testing.assert_array_equal(samples.tokens[row, :length], answer[:length])
    assert samples.truncated[row] == (
      not np.isin(answer, SIZE["eos_ids"]).any()
    )


@pytest.mark.parametrize("case", ["llama 3", "gemma 3"])
def test_bfloat16_rounds_no_more_than_transformers_does(torch, pair, case):
  _, params, theirs = pair(case)
  ids, mask, targets = _prompts()
  exact = _teacher_forced(torch, theirs, ids, mask, targets)
  config = DecoderConfig(**SIZE | CASES[case][1], dtype="bfloat16")
  rounded = decoder_only.decoder_only(config)
  got = jax.jit(rounded.logits)(params, ids, targets, input_mask=mask)
  theirs = type(theirs)(theirs.config).to(torch.bfloat16).eval()
  theirs.load_state_dict(pair(case)[2].state_dict())
  want = _teacher_forced(torch, theirs, ids, mask, targets)
  error, limit = (np.sqrt(np.mean((x - exact) ** 2)) for x in (got, want))
  assert 0 < error <= limit
