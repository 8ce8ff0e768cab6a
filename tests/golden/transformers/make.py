"""Makes the golden files of this folder with PyTorch and transformers.

  python tests/golden/transformers/make.py [NAME …]

Needs numpy, torch and transformers, not gkd: weights are drawn by NumPy, given
T5X's names and loaded into transformers' own T5. `tests/parity` uses the same
functions to compare live.
"""

import copy
import json
import pathlib
import sys

import numpy as np
import torch
import transformers

# T5X name -> transformers name, by the last parts of a parameter's path.
ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}
BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"

SIZES = (
  *("vocab_size", "emb_dim", "num_heads"),
  *("num_encoder_layers", "num_decoder_layers", "head_dim", "mlp_dim"),
)
TIED_RELU = {"mlp_activations": ("relu",), "logits_via_embedding": True}
GATED_GELU = {"mlp_activations": ("gelu", "linear")}
GATED_SILU = {"mlp_activations": ("silu", "linear")}


def sized(*values: int):
  """Fields of a T5Config: values of SIZES."""
  return dict(zip(SIZES, values, strict=True))


BASE = sized(40, 24, 3, 2, 1, 5, 20)  # 3·5 differs from the width
CASES = {
  "t5_1_0": BASE | TIED_RELU,
  "t5_1_1": BASE | GATED_GELU,
  "umt5": BASE
  | GATED_SILU
  | {
    "bias_per_layer": True,
    "relative_buckets": 12,
    "relative_max_distance": 20,
  },
  # UL2 in small: one bias table a stack, heads that are wider together.
  "ul2": sized(26, 12, 2, 2, 1, 8, 18) | GATED_SILU,
  "gated_gelu_tied": sized(23, 10, 3, 1, 1, 4, 9)
  | GATED_GELU
  | {"logits_via_embedding": True},
  "t5_1_0_odd": sized(29, 11, 5, 1, 2, 3, 17)
  | TIED_RELU
  | {"relative_buckets": 10, "relative_max_distance": 29},
}
# Also computed in bfloat16; one is enough for the file size.
BFLOAT16 = {"ul2"}


def main():
  folder = pathlib.Path(__file__).parent
  for seed, (name, options) in enumerate(CASES.items()):
    if sys.argv[1:] and name not in sys.argv[1:]:
      continue
    weights, model = make_model(options, seed)
    inputs, targets = make_batch(options["vocab_size"], seed)
    np.savez_compressed(
      folder / f"{name}.npz",
      options=json.dumps(options),
      inputs=inputs,
      targets=targets,
      **outputs(model, inputs, targets, name in BFLOAT16),
      **{f"params/{path}": array for path, array in weights.items()},
    )
    print(name, transformers.__version__, torch.__version__)


def outputs(model, inputs, targets, bfloat16: bool) -> dict[str, np.ndarray]:
  """All that is kept of a model: see README.md of this folder."""
  kept = {
    "encoded": encoded(model, inputs),
    "logits": teacher_forced(model, inputs, targets),
    "loss": loss(model, inputs, targets),
    "greedy": greedy(model, inputs, 16),
  }
  if bfloat16:
    kept["logits_bfloat16"] = teacher_forced(
      in_bfloat16(model), inputs, targets
    )
  return kept


def make_model(options, seed: int):
  """Random weights {T5X name: float16 array}, and the model that has them.

  Args:
    options: fields of `gkd.models.t5.T5Config`; the rest are its defaults.
    seed: of the weights.
  """
  model = empty_model(options)
  random = np.random.RandomState(seed)
  weights = {}
  state = model.state_dict()
  for path, (name, transpose) in sorted(names(options).items()):
    shape = tuple(state[name].shape)
    shape = shape[::-1] if transpose else shape
    value = random.normal(size=shape)
    if path.endswith("scale"):
      value = 1 + 0.2 * value
    elif path.endswith("kernel"):
      value /= np.sqrt(shape[0])
    if path.endswith("query/kernel"):
      # T5 does so instead of dividing scores. Without it softmax is so steep
      # that float32 rounding shows in the fifth decimal.
      value /= np.sqrt(options["head_dim"])
    # Half precision keeps the files small; both sides compute in float32.
    weights[path] = value.astype(np.float16)
    tensor = torch.from_numpy(weights[path].astype(np.float32))
    parameter = model.get_parameter(name)
    parameter.data = (tensor.T if transpose else tensor).contiguous()
  return weights, model.eval()


def empty_model(options):
  """Transformers' model of the same function, with weights of its own."""
  first, *gate = options["mlp_activations"]
  tied = options.get("logits_via_embedding", False)
  per_layer = options.get("bias_per_layer", False)
  family = (
    (transformers.UMT5Config, transformers.UMT5ForConditionalGeneration)
    if per_layer
    else (transformers.T5Config, transformers.T5ForConditionalGeneration)
  )
  config = family[0](
    vocab_size=options["vocab_size"],
    d_model=options["emb_dim"],
    d_kv=options["head_dim"],
    d_ff=options["mlp_dim"],
    num_layers=options["num_encoder_layers"],
    num_decoder_layers=options["num_decoder_layers"],
    num_heads=options["num_heads"],
    relative_attention_num_buckets=options.get("relative_buckets", 32),
    relative_attention_max_distance=options.get("relative_max_distance", 128),
    feed_forward_proj=f"gated-{first}" if gate else first,
    tie_word_embeddings=tied,
    decoder_start_token_id=0,
    pad_token_id=0,
    eos_token_id=1,
  )
  model = family[1](config)
  # transformers 5 ties the head of every T5 that is built from a config, and
  # its UMT5 then also scales the states.
  config.tie_word_embeddings = tied
  if not tied:
    model.lm_head.weight = torch.nn.Parameter(model.shared.weight.clone())
  return model


def names(options) -> dict[str, tuple[str, bool]]:
  """{T5X name: (transformers name, whether it is the transpose)}."""
  table = {"token_embedder/embedding": ("shared.weight", False)}
  if not options.get("logits_via_embedding", False):
    table["decoder/logits_dense/kernel"] = ("lm_head.weight", True)
  for stack in ("encoder", "decoder"):
    norm = f"{stack}.final_layer_norm.weight"
    table[f"{stack}/{stack}_norm/scale"] = (norm, False)
    layers = options[f"num_{stack}_layers"]
    per_layer = options.get("bias_per_layer", False)
    for i in range(layers if per_layer else 1):
      ours = f"{stack}/layers_{i}" if per_layer else stack
      theirs = f"{stack}.block.{i}.{BIAS}"
      table[f"{ours}/relpos_bias/rel_embedding"] = (theirs, True)
    for ours, theirs in layer_names(stack, len(options["mlp_activations"])):
      for i in range(layers):
        table[f"{stack}/layers_{i}/{ours}"] = (
          f"{stack}.block.{i}.layer.{theirs}.weight",
          ours.endswith("kernel"),
        )
  return table


def layer_names(stack, num_activations):
  """Names within a layer: T5X's, and transformers' below `layer.`."""
  attentions = (("attention", "attention", "SelfAttention"),)
  if stack == "decoder":
    attentions = (
      ("self_attention", "self_attention", "SelfAttention"),
      ("encoder_decoder_attention", "cross_attention", "EncDecAttention"),
    )
  for j, (attention, norm, module) in enumerate(attentions):
    yield f"pre_{norm}_layer_norm/scale", f"{j}.layer_norm"
    for ours, theirs in ATTENTION.items():
      yield f"{attention}/{ours}/kernel", f"{j}.{module}.{theirs}"
  j = len(attentions)
  yield "pre_mlp_layer_norm/scale", f"{j}.layer_norm"
  for wi in ("wi_0", "wi_1", "wo") if num_activations > 1 else ("wi", "wo"):
    yield f"mlp/{wi}/kernel", f"{j}.DenseReluDense.{wi}"


def make_batch(vocab_size: int, seed: int):
  """Inputs [4, 30] and targets [4, 35], right-padded with 0, ending in EOS.

  Long enough to leave the exact relative buckets.
  """
  random = np.random.RandomState(1000 + seed)
  sides = []
  for length in (30, 35):
    tokens = random.randint(2, vocab_size, (4, length))
    for row, size in enumerate((length, length - 7, 5, 1)):
      tokens[row, size - 1] = 1
      tokens[row, size:] = 0
    sides.append(tokens.astype(np.int32))
  return sides


def teacher_forced(model, inputs, targets) -> np.ndarray:
  """Logits [B, T, V] of transformers, as float32."""
  with torch.no_grad():
    previous = np.pad(targets[:, :-1], [(0, 0), (1, 0)])
    logits = model(
      input_ids=torch.from_numpy(inputs).long(),
      attention_mask=torch.from_numpy(inputs > 0),
      decoder_input_ids=torch.from_numpy(previous).long(),
    ).logits
    return logits.float().numpy()


def encoded(model, inputs) -> np.ndarray:
  """What the encoder of transformers hands to the decoder, [B, I, D]."""
  with torch.no_grad():
    return model.encoder(
      input_ids=torch.from_numpy(inputs).long(),
      attention_mask=torch.from_numpy(inputs > 0),
    ).last_hidden_state.numpy()


def in_bfloat16(model):
  """A copy whose weights and computation are bfloat16 throughout."""
  return copy.deepcopy(model).to(torch.bfloat16)


def loss(model, inputs, targets) -> np.ndarray:
  """The mean cross-entropy [] over labels, which are −100 at padding."""
  labels = np.where(targets > 0, targets, -100)
  with torch.no_grad():
    return model(
      input_ids=torch.from_numpy(inputs).long(),
      attention_mask=torch.from_numpy(inputs > 0),
      labels=torch.from_numpy(labels).long(),
    ).loss.numpy()


def greedy(
  model, inputs, num_tokens: int, *, forbidden=(0,), eos_id: int = 1
) -> np.ndarray:
  """Tokens [B, num_tokens] of transformers' greedy search, 0 after the end."""
  tokens = model.generate(
    input_ids=torch.from_numpy(inputs).long(),
    attention_mask=torch.from_numpy(inputs > 0).long(),
    max_new_tokens=num_tokens,
    do_sample=False,
    num_beams=1,
    eos_token_id=eos_id,
    suppress_tokens=list(forbidden),
    # Its cache has room for as many layers as the encoder has.
    use_cache=model.config.num_layers >= model.config.num_decoder_layers,
  )[:, 1:].numpy()
  tokens = np.pad(tokens, [(0, 0), (0, num_tokens - tokens.shape[1])])
  return tokens.astype(np.int32)


if __name__ == "__main__":
  main()
