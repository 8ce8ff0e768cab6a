"""Checkpoints that a configuration names, checked against model and data."""

import logging

import jax

from gkd import trees
from gkd.checkpoints import trained
from gkd.checkpoints.trained import Located
from gkd.data.cache import TokenCache
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import UserError

log = logging.getLogger("gkd")


def load(
  path: str, model: LanguageModel, name: str, cache: TokenCache
) -> Params:
  """Parameters of `model` from a checkpoint.

  Args:
    path: a run folder, one of its checkpoints, or a saved model.
    model: what they must fit.
    name: of the macro, for messages.
    cache: data that the model will read, for its vocabulary.

  Raises:
    UserError: missing or damaged, another model, or another vocabulary.
  """
  _check_given(path, name)
  like = jax.eval_shape(model.init, jax.random.key(0))
  try:
    params, about = trained.load_trained(path, like)
  except UserError as error:
    raise UserError(f"{name}: {error}") from error
  made_with = about.get("vocabulary_sha256")
  spec = cache.info["vocabulary"]
  if made_with and made_with != spec["sha256"]:
    raise UserError(
      f"{name} {path!r} was trained with another vocabulary (sha256"
      f" {made_with[:12]}) than the data of {cache.info['task']} has"
      f" ({spec['sha256'][:12]}); set VOCABULARY to the checkpoint's"
    )
  log.info(
    "%s: %s, %s parameters",
    name,
    path,
    format(trees.num_parameters(params), ","),
  )
  return params


def locate(path: str, name: str, *, verify: bool = True) -> Located:
  """The checkpoint that `load` reads; of a run the newest. See there."""
  _check_given(path, name)
  try:
    return trained.locate(path, verify=verify)
  except UserError as error:
    raise UserError(f"{name}: {error}") from error


def load_teacher(
  path: str, teacher: LanguageModel | None, cache: TokenCache
) -> Params | None:
  """Parameters of the teacher; None without one. See `load`."""
  if teacher is None:
    return None
  return load(path, teacher, "TEACHER_CHECKPOINT_PATH", cache)


def _check_given(path: str, name: str) -> None:
  if not path:
    raise UserError(
      f"{name} is empty; give the folder of a run or of a checkpoint"
    )
