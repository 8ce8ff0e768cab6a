"""The step of `torch_gkd.py` beside this file, as `gkd` takes it, timed.

The same sizes, lengths, divergence, optimizer and precision, through `Run` and
what `gkd bench` calls. Weights are random and made on the device, so that no
checkpoint is needed. One of the 32,128 ids ends a text, so about one row in
250 ends before 128 tokens; the loop goes on to the end for the others, and the
update is as large.

In bfloat16 the parameters of the student stay float32, the teacher's are
bfloat16.

Usage:
  python -m benchmarks.peers.gkd_step --student=small --teacher=base \
    --dtype=bfloat16 --output=gkd.json
"""

import argparse
import functools
import json
from pathlib import Path
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import options
from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader
from gkd.data.writer import write_rows
from gkd.experiments import step_timing
from gkd.losses.divergence import GeneralizedJSD
from gkd.losses.objective import Distillation
from gkd.models import t5
from gkd.text.vocabulary import ByteVocabulary
from gkd.training.learning_rates import LearningRateSchedule
from gkd.training.optimizer import AdamW
from gkd.training.rollout import Rollout
from gkd.training.run import Run
from gkd.types import LanguageModel
from gkd.types import Model
from gkd.types import Params

_TINY = {
  "emb_dim": 64,
  "num_heads": 4,
  "head_dim": 16,
  "num_encoder_layers": 2,
  "num_decoder_layers": 2,
  "mlp_dim": 128,
  "mlp_activations": ("gelu", "linear"),
  "vocab_size": options.ROWS,
}


def make_model(size: str, dtype: str, dropout: float) -> LanguageModel:
  """A T5 1.1 whose rows are all real ids."""
  published = _TINY if size == "tiny" else f"T5_1_1_{size.upper()}"
  return t5.encoder_decoder(
    t5.T5Config.from_size(
      published, vocabulary_size=options.ROWS, dtype=dtype, dropout_rate=dropout
    )
  )


def random_params(model: LanguageModel, seed: int, dtype: str) -> Params:
  """Arrays of about T5's scale.

  They are drawn shape by shape: to compile `init` of a large model takes
  longer than all else here.
  """
  leaves, structure = jax.tree.flatten(model.abstract_params)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return structure.unflatten(
    _draw(key, leaf.shape, dtype)
    for key, leaf in zip(keys, leaves, strict=True)
  )


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw(key, shape, dtype):
  if len(shape) == 1:  # the scale of a norm
    return jnp.ones(shape, dtype)
  scale = 1 if shape[0] == options.ROWS else shape[0] ** -0.5
  return (scale * jax.random.normal(key, shape)).astype(dtype)


def make_loader(args: argparse.Namespace, folder: Path) -> Loader:
  """Random rows of full length."""
  random = np.random.default_rng(0)
  draw = functools.partial(random.integers, 2, options.ROWS, dtype=np.int32)
  rows = [
    Row(draw(args.input_length), draw(args.target_length), "", "")
    for _ in range(2 * args.batch_size)
  ]
  lengths = {"inputs": args.input_length, "targets": args.target_length}
  about = {
    "task": "random",
    "split": "train",
    "lengths": lengths,
    "vocabulary": ByteVocabulary(options.ROWS - ByteVocabulary().size),
  }
  cache = TokenCache(write_rows(folder / "cache", rows, about))
  return Loader(cache, batch_size=args.batch_size, lengths=lengths, seed=0)


def make_run(args: argparse.Namespace, folder: Path) -> Run:
  """A run whose step is that of the arguments."""
  student = make_model(args.student, args.dtype, args.dropout)
  teacher = make_model(args.teacher, args.dtype, 0.0)
  return Run(
    model_dir=str(folder / "run"),
    roles={
      "student": Model(student, random_params(student, 0, "float32")),
      "teacher": Model(teacher, random_params(teacher, 1, args.dtype)),
    },
    objective=Distillation(
      GeneralizedJSD(args.beta), chunk_size=args.chunk_size
    ),
    rollout=Rollout(student_fraction=1.0),
    optimizer=AdamW(
      schedule=LearningRateSchedule(learning_rate=1e-4, total_steps=1000)
    ),
    loader=make_loader(args, folder),
    train_steps=1000,
  )


def main() -> None:
  """Measures, prints and writes the results."""
  parser = options.parser(__doc__)
  parser.add_argument("--chunk_size", type=int, help="see Distillation")
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    run = make_run(args, Path(folder))
    result = step_timing.measure(run, args.rounds)
  print(step_timing.describe(result))
  text = json.dumps(vars(args) | result, indent=2, ensure_ascii=False) + "\n"
  Path(args.output).write_text(text, encoding="utf-8")


if __name__ == "__main__":
  main()
