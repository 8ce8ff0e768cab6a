"""Checkpoints that a configuration names, checked against model and data."""

from collections.abc import Mapping
import dataclasses
import logging

import jax

from gkd import trees
from gkd.checkpoints import source
from gkd.checkpoints.checkpoint import VOCABULARY_KEY
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.config.records import DataConfig
from gkd.text.vocabulary import Vocabulary
from gkd.text.vocabulary import first_difference
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import UserError

log = logging.getLogger("gkd")

_MAX_PIECES = 3  # shown where two vocabularies differ


def locate(path: str, name: str, *, verify: bool = True) -> Checkpoint:
  """The checkpoint that a macro names; of a run the newest.

  Args:
    path: of a run, one of its checkpoints, a saved model, a checkpoint of T5X
      or a folder of Hugging Face.
    name: of the macro, for messages.
    verify: see `source.open_checkpoint`.

  Raises:
    UserError: missing, damaged, or none of the formats.
  """
  if not path:
    raise UserError(
      f"{name} is empty; give the folder of a run or of a checkpoint"
    )
  try:
    return source.open_checkpoint(path, verify=verify)
  except UserError as error:
    raise UserError(f"{name}: {error}") from error


def load(
  checkpoint: Checkpoint,
  model: LanguageModel,
  name: str,
  mesh: jax.sharding.Mesh,
  dtype: str | None = None,
) -> Params:
  """Parameters of `model` from a checkpoint, see `source.load_params`.

  Raises:
    UserError: missing or damaged, or another model.
  """
  try:
    params = source.load_params(checkpoint, model, mesh, dtype=dtype)
  except UserError as error:
    raise UserError(f"{name}: {error}") from error
  log.info(
    "%s: %s, %s parameters",
    name,
    checkpoint.path,
    format(trees.num_parameters(params), ","),
  )
  return params


def with_tokenizer(
  data: DataConfig, found: Mapping[str, Checkpoint]
) -> DataConfig:
  """Where VOCABULARY is empty, the tokenizer that a checkpoint brings.

  Args:
    data: one split.
    found: {name of the macro: checkpoint}; the first one that has any counts.
  """
  if data.vocabulary or data.cache:
    return data
  for name, one in found.items():
    if source.vocabulary(one) is not None:
      log.info("VOCABULARY: the tokenizer of %s", name)
      folder = str(one.home)
      return dataclasses.replace(data, vocabulary=folder)
  return data


def check_tokenizer(
  found: Checkpoint, name: str, vocabulary: Vocabulary
) -> None:
  """The checkpoint must have been trained with the data's vocabulary.

  One that brings no tokenizer, nor the hash of one, is said to be unchecked.

  Raises:
    UserError: another vocabulary; shows the first pieces that differ.
  """
  mine = source.vocabulary(found)
  if mine is not None:
    if different := differences(mine, vocabulary):
      raise UserError(
        f"{name} {found.path} has another tokenizer than the data:"
        f" {different}; set VOCABULARY to the checkpoint's folder"
      )
    return
  made_with = found.metadata.get(VOCABULARY_KEY)
  if made_with and made_with != vocabulary.sha256:
    raise UserError(
      f"{name} {str(found.path)!r} was trained with another vocabulary (sha256"
      f" {made_with[:12]}) than the data has ({vocabulary.sha256[:12]}); set"
      " VOCABULARY to the checkpoint's"
    )
  if not made_with:
    log.warning(
      "%s: the checkpoint brings no tokenizer; whether it was trained with the"
      " vocabulary of the data is NOT CHECKED",
      name,
    )


def differences(left: Vocabulary, right: Vocabulary) -> str | None:
  """Where two vocabularies differ, with the first pieces; None if nowhere.

  Args:
    left: the checkpoint's.
    right: the data's.
  """
  shared = min(left.size, right.size)
  unlike = [i for i in range(shared) if left.piece(i) != right.piece(i)]
  if not unlike:
    return first_difference(left, right)
  shown = ", ".join(
    f"id {i} is {left.piece(i)!r} there and {right.piece(i)!r} here"
    for i in unlike[:_MAX_PIECES]
  )
  return f"{shown} ({len(unlike):,} of {shared:,} ids differ)"
