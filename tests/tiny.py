"""A run that is as small as one can be: two-term sums and models of width 16.

The models are TINY and TINY_TEACHER of configs/test/tiny.gin. Models and
optimizer are the same objects in every test, so that compiled programs are
shared.
"""

import dataclasses
import functools
import json
import pathlib

import jax
import numpy as np
import optax

from gkd import partitioning
from gkd import trees
from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader
from gkd.data.writer import write_rows
from gkd.evaluation.evaluation import Evaluation
from gkd.losses import divergence
from gkd.losses.objective import Distillation
from gkd.models import t5
from gkd.models.decoder_only import DecoderConfig
from gkd.sampling.params import SamplingParams
from gkd.text.chain_addition import CHARACTERS
from gkd.text.chain_addition import ChainAddition
from gkd.text.vocabulary import CharacterVocabulary
from gkd.training import t5x_adafactor_state
from gkd.training.learning_rates import LearningRateSchedule
from gkd.training.optimizer import Adafactor
from gkd.training.optimizer import AdamW
from gkd.training.periods import Periods
from gkd.training.rollout import Rollout
from gkd.training.run import Run
from gkd.types import Model

LENGTHS = {"inputs": 8, "targets": 16}
VOCABULARY = CharacterVocabulary(CHARACTERS)
STUDENT = t5.encoder_decoder(
  t5.T5Config(
    vocab_size=VOCABULARY.size + 2,
    vocabulary_size=VOCABULARY.size,
    emb_dim=16,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=8,
    mlp_dim=32,
    mlp_activations=("gelu", "linear"),
    dropout_rate=0.1,
  )
)
TEACHER = t5.encoder_decoder(
  dataclasses.replace(
    STUDENT.config, emb_dim=24, head_dim=12, mlp_dim=48, dropout_rate=0.0
  )
)
DECODER = DecoderConfig(
  vocab_size=STUDENT.config.vocab_size,
  vocabulary_size=VOCABULARY.size,
  emb_dim=16,
  num_layers=3,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  mlp_dim=32,
)
STEPS = 6
CHAINS = ChainAddition(min_terms=2, max_terms=2, digits=2)


@functools.cache
def parameters(model, seed):
  """Start values of about T5's scale; a run copies what it changes."""
  rng = np.random.default_rng(seed)

  def draw(leaf):
    if leaf.ndim == 1:  # the scale of a norm
      return np.ones(leaf.shape, leaf.dtype)
    scale = 1 if leaf.shape[0] == model.config.vocab_size else leaf.shape[0]
    values = rng.normal(size=leaf.shape) / np.sqrt(scale)
    return values.astype(leaf.dtype)

  return jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0)))


def make_cache(
  path,
  *,
  targets=True,
  num_prompts=0,
  rows=40,
  split="train",
  chains=CHAINS,
  vocabulary=VOCABULARY,
  **changes,
):
  made = []
  for problem in chains.problems(split, rows):
    begun = (
      (vocabulary.prompt_start, problem.inputs),
      (vocabulary.target_start, problem.targets),
    )
    ids = [
      np.asarray(
        [*start, *vocabulary.encode(text), vocabulary.eos_ids[0]], np.int32
      )
      for start, text in begun
    ]
    has_target = targets and len(made) >= num_prompts
    target = ids[1] if has_target else ids[1][:0]
    made.append(Row(ids[0], target, problem.inputs, problem.answer))
  info = {
    "task": "sums",
    "split": split,
    "lengths": LENGTHS,
    "vocabulary": vocabulary,
    "postprocess": "gkd.text.postprocess:chain_answer",
    "metrics": ["gkd.text.metrics:accuracy"],
  }
  return TokenCache(write_rows(path, made, info | changes))


CACHES = {
  "train": {},
  "prompts": {"targets": False},
  "validation": {"rows": 8, "split": "validation"},
}


def make_caches(folder) -> None:
  """The caches of the fixture `caches`."""
  for name, options in CACHES.items():
    make_cache(folder / name, **options)


def _optimizer(kind, changes):
  fields = {"learning_rate": 1e-2, "total_steps": STEPS}
  for field in dataclasses.fields(LearningRateSchedule):
    # `step_offset` is that of Adafactor.
    if field.name in changes and field.name != "step_offset":
      fields[field.name] = changes.pop(field.name)
  return kind(schedule=LearningRateSchedule(**fields), **changes)


def adamw(**changes) -> AdamW:
  """An optimizer with fields of its own and of its schedule."""
  return _optimizer(AdamW, changes)


def adafactor(**changes) -> Adafactor:
  """An optimizer with fields of its own and of its schedule."""
  return _optimizer(Adafactor, changes)


def make_run(folder, caches, **changes) -> Run:
  """The tiny run with other fields, of its `Periods` as well.

  `teacher` are the parameters of the teacher, None for a run without one.
  """
  roles = {"student": Model(STUDENT, parameters(STUDENT, 0))}
  teacher = changes.pop("teacher", parameters(TEACHER, 1))
  if teacher is not None:
    roles["teacher"] = Model(TEACHER, teacher)
  periods = {"report": 1, "eval": 0, "checkpoint": 2}
  for field in dataclasses.fields(Periods):
    if field.name in changes:
      periods[field.name] = changes.pop(field.name)
  fields = {
    "model_dir": str(folder),
    "roles": roles,
    "objective": Distillation(divergence.GeneralizedJSD(0.5)),
    "rollout": Rollout(student_fraction=0.5),
    "optimizer": adamw(warmup_steps=2),
    "loader": Loader(caches["train"], batch_size=8, lengths=LENGTHS, seed=0),
    "train_steps": STEPS,
    "seed": 3,
    # Programs for one device compile in half the time.
    "mesh": partitioning.make_mesh(devices=jax.devices()[:1]),
    "periods": Periods(**periods),
  }
  return Run(**fields | changes)


def make_evaluation(cache, **changes) -> Evaluation:
  fields = {
    "name": "sums",
    "split": "validation",
    "cache": cache,
    "lengths": LENGTHS,
    "decoding": SamplingParams(temperature=1.0),
    "batch_size": 8,
  }
  return Evaluation(**(fields | changes))


def log_softmax(logits) -> np.ndarray:
  """In float64, by numpy: what jax's is compared with."""
  logits = np.asarray(logits, np.float64)
  shifted = logits - logits.max(axis=-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def assert_identical(actual, expected) -> None:
  """Trees of arrays that are equal to the bit."""
  jax.tree.map(
    np.testing.assert_array_equal, *jax.device_get((actual, expected))
  )


def lines(folder) -> list[dict]:
  """metrics.jsonl."""
  text = (pathlib.Path(folder) / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def records(folder) -> list[dict]:
  """metrics.jsonl without what depends on the clock or the process."""
  volatile = ("time/", "compile/", "memory/")
  return [
    {k: v for k, v in line.items() if not k.startswith(volatile)}
    for line in lines(folder)
  ]


def adafactor_slots(opt_state) -> dict[str, np.ndarray]:
  """Adafactor's slots by T5X's names, sorted."""
  get = optax.tree_utils.tree_get
  slots = {
    f"{kind}/{name}": leaf
    for kind in ("v_row", "v_col", "v")
    for name, leaf in trees.flatten(get(opt_state, kind)).items()
  }
  slots |= t5x_adafactor_state.unused_momenta(slots)
  return dict(sorted(jax.device_get(slots).items()))
