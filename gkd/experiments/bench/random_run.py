"""A distillation run of T5 models with random weights on random rows.

What a step costs depends on sizes alone, so nothing is read: weights are drawn
on the device, and rows are of full length, as no id ends a text. In bfloat16
the student's parameters stay float32, the teacher's are bfloat16.

  with tempfile.TemporaryDirectory() as folder:
    run = RandomRun(size="t5_1_1_small", teacher_size="t5_1_1_xl").build(folder)
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader
from gkd.data.writer import write_rows
from gkd.errors import check_number
from gkd.evaluation.evaluation import Evaluation
from gkd.losses.divergence import GeneralizedJSD
from gkd.losses.objective import Distillation
from gkd.models import sizes
from gkd.models import t5
from gkd.sampling.params import SamplingParams
from gkd.text.characters import MAX_EXTRA_IDS
from gkd.text.vocabulary import ByteVocabulary
from gkd.training.learning_rates import LearningRateSchedule
from gkd.training.optimizer import AdamW
from gkd.training.rollout import Rollout
from gkd.training.run import Run
from gkd.types import LanguageModel
from gkd.types import Model
from gkd.types import Params
from gkd.types import UserError

TINY = "TINY"
# A shuffle of fewer rows takes longer than reading them, see `data.shuffle`.
_ROWS = 4096
_TINY = sizes.named("SCRATCH_MINI") | {
  "vocab_size": 512,
  "vocabulary_size": 512,
  "mlp_activations": ("relu",),
  "logits_via_embedding": True,
}
_SIZES = {TINY} | {
  name
  for name in sizes.NAMES
  if sizes.named(name)["vocabulary_size"] <= MAX_EXTRA_IDS
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomRun:
  """Sizes of an on-policy step: JSD(0.5), temperature 1, AdamW.

  Attributes:
    size: of the student, `TINY` or one of `sizes.NAMES`, in any case.
    teacher_size: of the teacher; None for that of the student.
    dtype: of the computation.
    batch_size: rows.
    input_length: tokens of a prompt; None for 64, of tiny models 32.
    target_length: tokens of a target; None for 32, of tiny models 16.
    dropout: of the student.
    chunk_size: see `Distillation`.
  """

  size: str
  teacher_size: str | None = None
  dtype: str = "float32"
  batch_size: int = 8
  input_length: int | None = None
  target_length: int | None = None
  dropout: float = 0.0
  chunk_size: int | None = None

  def __post_init__(self):
    lengths = {"input_length": 64, "target_length": 32}
    for name, length in lengths.items():
      if getattr(self, name) is None:
        length //= 1 + (self.size.upper() == TINY)
        object.__setattr__(self, name, length)
    for name in ("batch_size", *lengths):
      expected = "a whole number of at least 1"
      check_number(f"--{name}", getattr(self, name), lambda n: n >= 1, expected)

  def build(self, folder: str) -> Run:
    """The run; its rows and whatever it writes lie in the folder."""
    student = self._model("size", self.size, self.dropout)
    teacher_size = self.teacher_size or self.size
    teacher = self._model("teacher_size", teacher_size, 0.0)
    lengths = {"inputs": self.input_length, "targets": self.target_length}
    num_ids = min(student.vocabulary_size, teacher.vocabulary_size)
    rows = max(_ROWS, self.batch_size)
    cache = _random_rows(Path(folder, "rows"), rows, lengths, num_ids)
    evaluation = Evaluation(
      name="random",
      split="train",
      cache=cache,
      lengths=lengths,
      decoding=SamplingParams(temperature=0.0),
      batch_size=self.batch_size,
      chunk_size=self.chunk_size,
    )
    return Run(
      model_dir=str(Path(folder, "run")),
      roles={
        "student": Model(
          student, functools.partial(random_params, student, 0, "float32")
        ),
        "teacher": Model(teacher, random_params(teacher, 1, self.dtype)),
      },
      objective=Distillation(GeneralizedJSD(0.5), chunk_size=self.chunk_size),
      rollout=Rollout(student_fraction=1.0),
      optimizer=AdamW(
        schedule=LearningRateSchedule(learning_rate=1e-4, total_steps=10**6)
      ),
      loader=Loader(cache, batch_size=self.batch_size, lengths=lengths, seed=0),
      evaluations=[evaluation],
      train_steps=10**6,
    )

  def _model(self, flag: str, size: str, dropout: float) -> LanguageModel:
    if size.upper() not in _SIZES:
      raise UserError(
        f"--{flag} is {size!r}; {sizes.nearest(size)}give tiny or a size of"
        f" gkd list models of at most {MAX_EXTRA_IDS:,} ids, as t5_1_1_small"
      )
    fields = _TINY if size.upper() == TINY else size.upper()
    return t5.encoder_decoder(
      t5.T5Config.from_size(fields, dtype=self.dtype, dropout_rate=dropout)
    )


def random_params(model: LanguageModel, seed: int, dtype: str) -> Params:
  """Arrays of about T5's scale.

  They are drawn shape by shape: to compile `init` of a large model takes
  longer than all else here.
  """
  leaves, structure = jax.tree.flatten(model.abstract_params)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  rows = model.config.vocab_size
  return structure.unflatten(
    _draw(key, leaf.shape, dtype, rows)
    for key, leaf in zip(keys, leaves, strict=True)
  )


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _draw(key, shape, dtype, rows):
  if len(shape) == 1:  # the scale of a norm
    return jnp.ones(shape, dtype)
  scale = 1 if shape[0] == rows else shape[0] ** -0.5
  return (scale * jax.random.normal(key, shape)).astype(dtype)


def _random_rows(
  path: Path, count: int, lengths: dict[str, int], num_ids: int
) -> TokenCache:
  """A cache of random ids, of which none ends a text."""
  draw = functools.partial(np.random.default_rng(0).integers, 3, num_ids)
  rows = [
    Row(*(draw(n, dtype=np.int32) for n in lengths.values()), "", "")
    for _ in range(count)
  ]
  about = {
    "task": "random",
    "split": "train",
    "lengths": lengths,
    "vocabulary": ByteVocabulary(num_ids - ByteVocabulary().size),
  }
  cache = TokenCache(write_rows(path, rows, about))
  cache.vocabulary.eos_ids = ()
  return cache
