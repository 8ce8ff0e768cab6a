"""Rewards that are models, as a configuration names them; see `rewards/`."""

import dataclasses
import functools
from typing import Literal

import jax

from gkd import partitioning
from gkd.checkpoints import source
from gkd.config import model_spec
from gkd.config.model_spec import FromCheckpoint
from gkd.config.records import at_least_one
from gkd.rewards.entailment import Entailment
from gkd.text import tokenizer_folder
from gkd.types import Model
from gkd.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EntailmentModel:
  """`Entailment` by the model of a checkpoint, which brings its tokenizer.

  Attributes:
    checkpoint: folder of the classifier, as for a teacher.
    dtype: of its parameters; None for float32.
    batch_size: see `Entailment`, as for length and prompt_prefix.
  """

  checkpoint: str
  dtype: Literal["float32", "bfloat16"] | None = None
  batch_size: int = Entailment.batch_size
  length: int = Entailment.length
  prompt_prefix: str = Entailment.prompt_prefix

  def __post_init__(self):
    at_least_one(REWARD_BATCH_SIZE=self.batch_size, REWARD_LENGTH=self.length)
    if not self.checkpoint:
      raise UserError(
        "REWARD_CHECKPOINT_PATH is empty; give the folder of an NLI model"
      )

  def on_mesh(self, mesh: jax.sharding.Mesh) -> Entailment:
    """The reward, its parameters read onto the mesh.

    Raises:
      UserError: no sound model, or one without a tokenizer.
    """
    partitioning.check_division(self.batch_size, 1, mesh, "REWARD_BATCH_SIZE")
    macro = model_spec.checkpoint_macro("reward")
    try:
      checkpoint = source.open_checkpoint(self.checkpoint)
      vocabulary = tokenizer_folder.load(checkpoint.home)
      if vocabulary is None:
        raise UserError(
          f"{checkpoint.home} has no tokenizer; save it there with transformers"
        )
      spec = FromCheckpoint(dropout_rate=0.0, dtype=self.dtype or "float32")
      role = model_spec.Role(model=spec, checkpoint=self.checkpoint)
      lm = model_spec.build("reward", spec, checkpoint, vocabulary)
      lm = role.on_mesh(lm, "reward", mesh)
      params = source.load_params(checkpoint, lm, mesh, dtype=self.dtype)
    except UserError as error:
      raise UserError(f"{macro}: {error}") from error
    return Entailment(
      model=Model(lm, params),
      vocabulary=vocabulary,
      place=functools.partial(
        partitioning.place, shardings=partitioning.batch_sharding(mesh)
      ),
      content_sha256=checkpoint.content_sha256,
      batch_size=self.batch_size,
      length=self.length,
      prompt_prefix=self.prompt_prefix,
    )
