"""Textual entailment by a T5: whether a premise supports a hypothesis.

The reward of GKD's Eq. 5 on XSum (arXiv 2306.13649, after RLEF, 2306.00186):
a model of the TRUE family (Honovich et al., arXiv 2204.04991; on the hub as
google/t5_xxl_true_nli_mixture) reads

  premise: <the prompt> hypothesis: <the completion>

and answers "1" or "0". The reward is the probability of "1" against "0" at the
first position of its decoder. Its parameters are laid out over the mesh like a
teacher's; all processes score the whole batch together.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gkd import processes
from gkd.collate import collate
from gkd.structured_settings import setting
from gkd.text.vocabulary import Vocabulary
from gkd.types import Array
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Model
from gkd.types import Params
from gkd.types import UserError

_LABELS = ("1", "0")  # entailed or not, as the TRUE models write it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entailment:
  """Probability that the prompt entails the completion, from 0 to 1.

  Attributes:
    model: the classifier, its parameters on the mesh.
    vocabulary: its own; the student may have another one.
    place: lays a batch out over the mesh of the parameters.
    content_sha256: of the model, which a resumed run is compared by.
    batch_size: pairs at a time; a multiple of the mesh's rows.
    length: tokens of a pair; of what is longer the premise is cut at its end.
    prompt_prefix: taken off the prompts, which are premises without it, such as
      "summarize: ".
  """

  model: Model = dataclasses.field(compare=False)
  vocabulary: Vocabulary = dataclasses.field(compare=False)
  place: Callable[[Batch], Batch] = dataclasses.field(compare=False)
  content_sha256: str = setting("REWARD_CHECKPOINT_PATH")
  batch_size: int = setting("REWARD_BATCH_SIZE", default=32)
  length: int = setting("REWARD_LENGTH", default=512)
  prompt_prefix: str = setting("REWARD_PROMPT_PREFIX", default="")

  def __post_init__(self):
    if len(set(self.label_ids)) < len(_LABELS):
      raise UserError(
        "REWARD_CHECKPOINT_PATH: the tokenizer begins the labels '1' and '0'"
        " with the same token; give an NLI model of the TRUE family"
      )

  @property
  def label_ids(self) -> tuple[int, ...]:
    """First token of each label."""
    return tuple(self.vocabulary.encode(label)[0] for label in _LABELS)

  def __call__(
    self, prompts: Sequence[str], completions: Sequence[str], references: Any
  ) -> np.ndarray:
    del references
    pairs = zip(prompts, completions, strict=True)
    rows = [_Pair(self.tokens(*pair), np.zeros(0, np.int32)) for pair in pairs]
    lengths = {"inputs": self.length, "targets": 1}
    dispatched = []
    for start in range(0, len(rows), self.batch_size):
      part = rows[start : start + self.batch_size]
      batch = collate(part, range(len(part)), lengths, self.batch_size)
      found = _probability(
        self.model.lm, self.label_ids, self.model.params, self.place(batch)
      )
      dispatched.append(processes.replicate(found))
    return np.concatenate(jax.device_get(dispatched))[: len(rows)]

  def tokens(self, prompt: str, completion: str) -> np.ndarray:
    """The pair as the model reads it, its end included, at most `length`."""
    encode = self.vocabulary.encode
    premise = encode(f"premise: {prompt.removeprefix(self.prompt_prefix)}")
    hypothesis = [*encode(f" hypothesis: {completion}")]
    end = [self.vocabulary.eos_ids[0]]
    hypothesis = hypothesis[: self.length - 1]
    room = self.length - len(hypothesis) - len(end)
    return np.array([*premise[:room], *hypothesis, *end], np.int32)


@dataclasses.dataclass(frozen=True)
class _Pair:
  """A row of a batch."""

  inputs: np.ndarray
  targets: np.ndarray


@functools.partial(jax.jit, static_argnums=(0, 1))
def _probability(
  lm: LanguageModel, label_ids: tuple[int, ...], params: Params, batch: Batch
) -> Array:
  """[B] probability of the first label among all of them."""
  # The first token does not depend on targets; one that is no padding.
  batch = batch.replace(targets=jnp.full_like(batch.targets, label_ids[0]))
  hidden = lm.hidden_of(params, batch)[:, 0]
  logits = lm.head(params, hidden)[:, jnp.array(label_ids)]
  return jax.nn.softmax(logits.astype(jnp.float32))[:, 0]
