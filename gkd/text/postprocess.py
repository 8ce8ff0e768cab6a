"""From generated text, or a reference, to what a metric compares.

seqio's signature, `(text, example=None, is_target=False)`, without seqio: a
token cache records these functions by dotted name, and evaluation imports them
on machines without TensorFlow.
"""

from collections.abc import Mapping
from typing import Any

from gkd.text import chain_addition


def strip(text: str, example: Mapping | None = None, is_target: bool = False):
  """The text without surrounding blanks."""
  del example, is_target
  return text.strip()


def references(
  text: str, example: Mapping | None = None, is_target: bool = False
) -> str | list[str]:
  """A prediction stripped; a target as the list of all its references.

  These are in the field "references" of the example, if it has any.
  """
  if not is_target:
    return text.strip()
  listed = [] if example is None else example.get("references", [])
  return [_string(reference).strip() for reference in listed] or [text.strip()]


def answer_of_task(
  text: str, example: Mapping | None = None, is_target: bool = False
) -> str | dict[str, str]:
  """A prediction stripped; a target with the name in its field "task"."""
  if not is_target:
    return text.strip()
  return {"task": _string(example["task"]), "answer": text.strip()}


def chain_answer(
  text: str, example: Mapping | None = None, is_target: bool = False
) -> str:
  """The number behind the answer mark of a generated chain, or empty."""
  del example, is_target
  return chain_addition.parse_answer(text) or ""


def _string(value: Any) -> str:
  return value.decode("utf-8") if isinstance(value, bytes) else str(value)
