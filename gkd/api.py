"""The public interface for programs and notebooks; see docs/python.md.

Commands and configurations are not needed here: what a run is made of are
objects that a program builds.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
import os
import sys
from typing import NamedTuple

import jax
import numpy as np

from gkd import collate
from gkd import keys
from gkd import partitioning
from gkd.checkpoints import source
from gkd.evaluation import evaluate as evaluation_by_generation
from gkd.evaluation.evaluation import Evaluation
from gkd.models import registry
from gkd.models import vocabulary_check
from gkd.sampling import generate as generator
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import Strategy
from gkd.terminal import Escaped
from gkd.text import chat_formats
from gkd.text import tokenizer_folder
from gkd.training import loop
from gkd.training.run import Run as Run
from gkd.types import Model
from gkd.types import UserError

# Prompts are padded to a multiple of it, so that few lengths are compiled.
_BUCKET = 32


def show_log() -> None:
  """Prints what the library logs: start-up, warnings, each compilation."""
  log = logging.getLogger("gkd")
  log.setLevel(logging.INFO)
  if not log.handlers:
    handler = logging.StreamHandler(Escaped(sys.stderr))
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)


def load(
  path: str | os.PathLike,
  *,
  dtype: str | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> Model:
  """A model from a run, a saved model, a T5X or a Hugging Face folder.

  Args:
    path: the folder; of a run the newest checkpoint.
    dtype: "float32" or "bfloat16" of the parameters; None for that of
      the `init` of its family.
    mesh: devices that the parameters are laid out over, array by array; None
      for a mesh of all devices, a copy on each.

  Returns:
    The `Model`: `.lm`, `.params`, `.config`, and `.vocabulary`, which is None
    where the folder has no tokenizer.

  Raises:
    UserError: no such folder, none of the formats, or damaged.
  """
  checkpoint = source.open_checkpoint(path)
  origin = f"{path}, saved as {checkpoint.family!r},"
  lm = registry.build(checkpoint.config, origin)
  mesh = mesh or partitioning.make_mesh()
  lm = partitioning.partitioned(lm, mesh)
  params = source.load_params(checkpoint, lm, mesh, dtype=dtype)
  return Model(
    lm,
    params,
    vocabulary=tokenizer_folder.load(checkpoint.home),
    path=str(path),
    content_sha256=checkpoint.content_sha256,
  )


def train(run: Run) -> Model:
  """Trains a run, or continues it, and returns the student.

  It is the model that `load` gives for the run's folder, hash included.

  Raises:
    UserError: something that the run asks for is impossible, or its folder
      holds another run.
    FloatingPointError: the loss, a gradient or an update is not finite.
  """
  state = loop.train(run)
  # Its files were just written: they are not read again.
  saved = source.open_checkpoint(run.model_dir, verify=False)
  return dataclasses.replace(
    run.roles["student"],
    params=state.params,
    vocabulary=run.loader.vocabulary,
    path=run.model_dir,
    content_sha256=saved.content_sha256,
  )


def evaluate(
  model: Model,
  evaluation: Evaluation,
  *,
  teacher: Model | None = None,
  compared_with: Mapping[str, Model] | None = None,
  seed: int = 0,
  predictions_dir: str | None = None,
) -> dict[str, float]:
  """Scores of a model on a split, see `evaluation.evaluate`.

  Args:
    model: the model.
    evaluation: the split and the decoding strategy.
    teacher: also gives its own scores and the distances between the two.
    compared_with: other models by role, to measure the distances to.
    seed: of the draws.
    predictions_dir: where to write the predictions; None for nowhere.
  """
  roles = {"student": model} | ({"teacher": teacher} if teacher else {})
  roles |= compared_with or {}
  for role, one in roles.items():
    vocabulary_check.check(role, one.lm, evaluation.cache.vocabulary)
  return evaluation_by_generation.evaluate(
    evaluation, roles, seed=seed, step=0, predictions_dir=predictions_dir
  )


def generate(
  model: Model,
  prompts: Sequence[str],
  *,
  strategy: Strategy | None = None,
  max_length: int = 64,
  seed: int = 0,
  chat_format: str = "",
) -> list[str]:
  """One text for each prompt.

  Args:
    model: with a vocabulary.
    prompts: the texts, one batch.
    strategy: `SamplingParams` or `BeamSearch`; None for the most likely token
      at each position.
    max_length: tokens of the longest text.
    seed: of the draws, which also depend on the place of a prompt.
    chat_format: what stands around a prompt: "chatml", "chatml_no_thinking",
      "llama3", "gemma", "none", or "" for that of the vocabulary.

  Raises:
    FloatingPointError: the logits of the model are not finite.
  """
  vocabulary = model.vocabulary
  if vocabulary is None:
    raise UserError(
      f"the model of {model.path or 'this program'} has no vocabulary; give"
      " one: dataclasses.replace(model, vocabulary=…)"
    )
  vocabulary_check.check("model", model.lm, vocabulary)
  if not prompts:
    return []
  frame = chat_formats.find(vocabulary, chat_format)
  rows = [
    _Prompt(np.array(ids, np.int32))
    for ids in chat_formats.encode_prompts(vocabulary, prompts, frame)
  ]
  longest = max(len(row.inputs) for row in rows)
  lengths = {"inputs": -(-longest // _BUCKET) * _BUCKET, "targets": max_length}
  batch = collate.collate(rows, range(len(rows)), lengths, with_targets=False)
  samples = generator.generate(
    model,
    batch,
    keys.stream(seed, 0, keys.Role.OFFLINE_SAMPLE),
    strategy or SamplingParams(temperature=0.0),
    max_length=max_length,
    vocabulary=vocabulary,
  )
  if not samples.is_finite:
    raise FloatingPointError(
      f"the logits of the model of {model.path or 'this program'} are not"
      " finite; look at its checkpoint"
    )
  return [vocabulary.decode(ids) for ids in samples.tokens.tolist()]


class _Prompt(NamedTuple):
  inputs: np.ndarray
  targets: np.ndarray = np.zeros(0, np.int32)
