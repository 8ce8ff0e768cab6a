"""Checkpoints that a configuration names, checked against model and data."""

from collections.abc import Mapping
import dataclasses
import logging
from pathlib import Path

from gkd import trees
from gkd.checkpoints import local_copy
from gkd.checkpoints import trained
from gkd.checkpoints.trained import Located
from gkd.config.records import DataConfig
from gkd.models import t5_layers
from gkd.models.t5 import T5Config
from gkd.models.t5 import encoder_decoder
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import Vocabulary
from gkd.text.vocabulary import first_difference
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import UserError

log = logging.getLogger("gkd")

_MAX_PIECES = 3  # shown where two vocabularies differ


def locate(
  path: str, name: str, cache_dir: str, *, verify: bool = True
) -> Located:
  """The checkpoint that `load` reads; of a run the newest.

  Args:
    path: a run folder, one of its checkpoints, a saved model, or a checkpoint
      of T5X or folder of Hugging Face, which is converted once.
    name: of the macro, for messages.
    cache_dir: of the token caches, where copies of foreign checkpoints go.
    verify: see `trained.locate`.

  Raises:
    UserError: missing, damaged, or none of the formats.
  """
  if not path:
    raise UserError(
      f"{name} is empty; give the folder of a run or of a checkpoint"
    )
  try:
    if _may_be_foreign(path):
      path = str(local_copy.localized(path, cache_dir))
    return trained.locate(path, verify=verify)
  except UserError as error:
    raise UserError(f"{name}: {error}") from error


def load(path: str, model: LanguageModel, name: str) -> Params:
  """Parameters of `model` from a checkpoint that `locate` found.

  Raises:
    UserError: missing or damaged, or another model.
  """
  like = model.abstract_params
  try:
    params, _ = trained.load_trained(path, like)
  except UserError as error:
    raise UserError(f"{name}: {error}") from error
  log.info(
    "%s: %s, %s parameters",
    name,
    path,
    format(trees.num_parameters(params), ","),
  )
  return params


def load_every_kth(
  path: str, config: T5Config, name: str, strides: t5_layers.Strides
) -> Params:
  """Parameters of a smaller model: layers 0, k, 2k, … of a checkpoint's.

  Args:
    path: see `load`.
    config: of the checkpoint.
    name: see `load`.
    strides: k of encoder and decoder.
  """
  params = load(path, encoder_decoder(config), name)
  log.info("student: %s", t5_layers.words(config, strides))
  return t5_layers.every_kth(config, params, strides)[1]


def tokenizer(found: Located) -> Vocabulary | None:
  """The one that a checkpoint brings; None where it brings none."""
  return tokenizer_folder.load(found.home)


def with_tokenizer(
  data: DataConfig, found: Mapping[str, Located]
) -> DataConfig:
  """Where VOCABULARY is empty, the tokenizer that a checkpoint brings.

  Args:
    data: one split.
    found: {name of the macro: checkpoint}; the first one that has any counts.
  """
  if data.vocabulary or data.cache:
    return data
  for name, one in found.items():
    if tokenizer(one) is not None:
      log.info("VOCABULARY: the tokenizer of %s", name)
      folder = str(one.home)
      return dataclasses.replace(data, vocabulary=folder)
  return data


def check_tokenizer(found: Located, name: str, vocabulary: Vocabulary) -> None:
  """The checkpoint must have been trained with the data's vocabulary.

  One that brings no tokenizer, nor the hash of one, is said to be unchecked.

  Raises:
    UserError: another vocabulary; shows the first pieces that differ.
  """
  mine = tokenizer(found)
  if mine is not None:
    if different := differences(mine, vocabulary):
      raise UserError(
        f"{name} {found.path} has another tokenizer than the data:"
        f" {different}; set VOCABULARY to the checkpoint's folder"
      )
    return
  made_with = found.describe().get("vocabulary_sha256")
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


def _may_be_foreign(path: str) -> bool:
  """Whether to look what it is; of what is gone `trained` says so.

  An address and the name of a model on a hub have messages of their own.
  """
  folder = Path(path).expanduser()
  is_name = path.count("/") == 1 and not folder.parent.exists()
  return "://" in path or is_name or folder.exists()
