"""Whether a model has the ids of a vocabulary: how many, and which one pads.

check("student", model, vocabulary)
"""

from typing import Any

from gkd.models import registry
from gkd.types import LanguageModel
from gkd.types import UserError


def check(role: str, model: LanguageModel, vocabulary: Any) -> None:
  """Refuses a model of a role with other ids, or whose config is not frozen."""
  registry.family_of(model.config)
  check_size(role, model, vocabulary.size)
  check_pad_id(role, model, vocabulary.pad_id)


def check_size(role: str, model: LanguageModel, size: int) -> None:
  """Refuses a model with another number of real ids than the data."""
  if model.vocabulary_size == size:
    return
  rows, way = table_rows(model), other_way(role)
  numbers = f"the {role} has {model.vocabulary_size} ids but VOCABULARY has"
  if rows < size:
    raise UserError(
      f"{numbers} {size}, more than its table of {rows} rows can hold; choose"
      f" the VOCABULARY that it was trained with, or another model{way}"
    )
  macro = registry.macro_of(role, registry.family_of(model.config))
  raise UserError(
    f"{numbers} {size}: different vocabularies; set 'vocabulary_size': {size}"
    f" in {macro} if only its table is wider, or choose another model or"
    f" VOCABULARY{way}"
  )


def check_pad_id(role: str, model: LanguageModel, pad_id: int) -> None:
  """Refuses a model that takes another id for padding: it masks a real one.

  A family whose config has no `pad_id` masks by none.
  """
  own = getattr(model.config, "pad_id", pad_id)
  if own != pad_id:
    raise UserError(
      f"the {role} pads with id {own} but VOCABULARY with {pad_id}; choose the"
      " VOCABULARY that it was trained with, or set 'pad_id' of the model"
      f"{other_way(role)}"
    )


def other_way(role: str) -> str:
  """What else to do about other ids: a teacher's text needs none of them."""
  if role != "teacher":
    return ""
  return (
    "; a student of another tokenizer learns from the teacher's text: gkd"
    " sample, then gkd cache export (docs/data.md)"
  )


def table_rows(model: LanguageModel) -> int:
  """Rows of the table of the vocabulary, padded ones included."""
  return getattr(model.config, "vocab_size", model.vocabulary_size)
