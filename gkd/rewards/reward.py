"""What a reward is, and how one is asked.

A reward is any callable `(prompts, completions, references) -> numbers`: equal
lists in, one finite number for each completion out. One of your own is a
function, or a frozen dataclass with such a `__call__`, in a module beside the
gin file that imports it:

  def brevity(prompts, completions, references):
    return [-len(text.split()) for text in completions]

Its attribute `compares_answers = True` asks for what the task's postprocessor
makes of completions, as metrics see them, instead of the texts. With several
processes each one computes the rewards of the whole batch.
"""

from collections.abc import Sequence
from typing import Any
from typing import Protocol
from typing import runtime_checkable

import jax
import numpy as np

from gkd.types import UserError


class Reward(Protocol):
  """Judges completions; references are postprocessed targets, None without."""

  def __call__(
    self,
    prompts: Sequence[str],
    completions: Sequence[Any],
    references: Sequence[Any],
  ) -> Sequence[float]: ...


@runtime_checkable
class RewardModel(Protocol):
  """A reward that has to be loaded: settings, and the model by them."""

  def on_mesh(self, mesh: jax.sharding.Mesh) -> Reward: ...


def opened(reward: Reward | RewardModel, mesh: jax.sharding.Mesh) -> Reward:
  """The reward, its model laid out over a mesh."""
  return reward.on_mesh(mesh) if isinstance(reward, RewardModel) else reward


def compares_answers(reward: Reward) -> bool:
  """Whether it takes postprocessed completions."""
  return getattr(reward, "compares_answers", False)


def compute(
  reward: Reward,
  prompts: Sequence[str],
  completions: Sequence[Any],
  references: Sequence[Any],
) -> np.ndarray:
  """[N] float64 rewards of one or more completions.

  Raises:
    UserError: not one finite number for each.
  """
  found = reward(prompts, completions, references)
  values = np.asarray(found, np.float64)
  if values.shape != (len(completions),) or not np.isfinite(values).all():
    name = getattr(reward, "__name__", type(reward).__name__)
    raise UserError(
      f"REWARD {name} gave {str(found)[:80]} for {len(completions)}"
      " completions; expected a list of one finite number for each"
    )
  return values
