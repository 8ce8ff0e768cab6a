"""The work of the programs that `t5.py` compares: sizes, weights, a batch."""

import argparse

import numpy as np

from gkd.models import sizes
from gkd.models import t5
from gkd.models import t5_params

_TINY = sizes.named("SCRATCH_MINI") | {
  "vocab_size": 512,
  "mlp_activations": ("relu",),
  "logits_via_embedding": True,
}
# T5 1.0, with a tied head, and T5 1.1.
SIZES = {"tiny": _TINY, "t5_small": sizes.named("T5_1_0_SMALL")} | {
  size: sizes.named(f"T5_1_1_{size.upper()}")
  for size in ("small", "base", "large")
}
# Rows of a batch, tokens of a prompt and of a target, steps of a turn.
_OPTIONS = ("batch_size", "input_length", "target_length", "steps")
_DEFAULTS = {"tiny": (8, 32, 16, 10), "t5_small": (8, 64, 32, 1)}
_LARGER = (32, 512, 128, 1)
LEARNING_RATE = 1e-4


def with_defaults(args: argparse.Namespace) -> argparse.Namespace:
  """The options; those that are left out are of the student's size."""
  values = args.size, *_DEFAULTS.get(args.size, _LARGER)
  defaults = dict(zip(("teacher", *_OPTIONS), values, strict=True))
  left = {k: v for k, v in defaults.items() if getattr(args, k) is None}
  return argparse.Namespace(**vars(args) | left)


def config(size: str, dtype: str = "float32", dropout: float = 0.0):
  """The `T5Config` of a size, whose rows of the table are all real ids."""
  fields = SIZES[size]
  options = {"vocabulary_size": fields["vocab_size"], "dtype": dtype}
  return t5.T5Config.from_size(fields, dropout_rate=dropout, **options)


def weights(size: str, seed: int) -> dict[str, np.ndarray]:
  """Random float32 weights of about T5's scale, by T5X's names."""
  random = np.random.default_rng(seed)

  def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:  # the scale of a norm
      return np.ones(shape, np.float32)
    scale = 1 if name == t5_params.EMBEDDING else shape[0] ** -0.5
    return scale * random.standard_normal(shape, np.float32)

  table = t5_params.table(config(size))
  return {name: draw(name, row.shape) for name, row in table.items()}


def ids(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
  """Random prompts [B, I] and targets [B, T] that fill their rows."""
  random = np.random.default_rng(0)
  vocab_size = SIZES[args.size]["vocab_size"]
  return tuple(
    random.integers(2, vocab_size, (args.batch_size, length), np.int32)
    for length in (args.input_length, args.target_length)
  )
