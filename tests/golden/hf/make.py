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
SMALL = reference.sized(19, 10, 3, 2, 1, 3, 12)
# name: (options, type, most bytes of a shard)
CASES = {
  "t5_1_0": (reference.TIED_RELU, "float32", "1GB"),
  "t5_1_1_bfloat16": (reference.GATED_GELU, "bfloat16", "1GB"),
  "umt5_sharded": (
    reference.GATED_SILU
    | {
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
