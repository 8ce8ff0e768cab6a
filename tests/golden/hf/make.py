"""Makes the golden folders of this folder with PyTorch and transformers.

  python tests/golden/hf/make.py

Needs numpy, torch and transformers, not gkd; models and batches are those of
`../transformers/make.py`.
"""

import pathlib
import runpy
import types

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
reference = types.SimpleNamespace(
  **runpy.run_path(str(HERE.parent / "transformers" / "make.py"))
)
SMALL = {
  "vocab_size": 19,
  "emb_dim": 10,
  "num_heads": 3,
  "num_encoder_layers": 2,
  "num_decoder_layers": 1,
  "head_dim": 3,
  "mlp_dim": 12,
}
# name: (options, type, most bytes of a shard)
CASES = {
  "t5_1_0": (
    {"mlp_activations": ("relu",), "logits_via_embedding": True},
    "float32",
    "1GB",
  ),
  "t5_1_1_bfloat16": (
    {"mlp_activations": ("gelu", "linear")},
    "bfloat16",
    "1GB",
  ),
  "umt5_sharded": (
    {
      "mlp_activations": ("silu", "linear"),
      "bias_per_layer": True,
      "relative_buckets": 12,
      "relative_max_distance": 20,
    },
    "float32",
    "5KB",
  ),
}


def main():
  for seed, (name, (options, dtype, most)) in enumerate(CASES.items()):
    _, model = reference.make_model(SMALL | options, seed)
    model = model.to(getattr(torch, dtype))
    model.save_pretrained(HERE / name, max_shard_size=most)
    inputs, targets = reference.make_batch(SMALL["vocab_size"], seed)
    np.savez_compressed(
      HERE / f"{name}.npz",
      inputs=inputs,
      targets=targets,
      logits=reference.teacher_forced(model.float(), inputs, targets),
    )


if __name__ == "__main__":
  main()
