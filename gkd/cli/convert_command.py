"""`gkd convert`: what was found, what was assumed, what was written."""

import argparse
import ast
from collections.abc import Sequence
import re
from typing import Any

from gkd.checkpoints import atomic_dir
from gkd.checkpoints import conversion
from gkd.checkpoints import expected_leaves
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.models import registry
from gkd.types import UserError

# Flags whose value goes into the model card of a Hugging Face folder.
CARD_FIELDS = ("license", "teacher_license", "data_license")
_FIELDS = registry.fields_with_sizes()
_FORMATS = {
  "gkd": "a model of gkd",
  "t5x": "a T5X checkpoint",
  "hf": "a Hugging Face folder",
}


def convert(args: argparse.Namespace) -> None:
  """Runs the command with its parsed flags.

  Raises:
    UserError: see `conversion`; nothing is left of the destination.
  """
  card = {name: value for name in CARD_FIELDS if (value := getattr(args, name))}
  if not args.destination and not args.dry_run:
    raise UserError(
      "gkd convert needs a folder to write: gkd convert SRC DST --to=…, or"
      " --dry_run to see only what it would hold"
    )
  conversion.check_card(card, args.to)
  if args.destination:
    atomic_dir.check(args.source, args.destination)
  planned = conversion.plan(
    args.source,
    to=args.to,
    given=parse_fields(args.set),
    dtype=args.dtype,
    step=args.step,
    slots=args.slots,
    tokenizer=args.tokenizer,
  )
  print("\n  ".join([*description(planned.checkpoint), *planned.remarks]))
  if args.dry_run:
    print("\n".join(table(planned)))
    print("nothing was written (--dry_run)")
    return
  try:
    conversion.write(planned, args.destination, card=card)
  except KeyboardInterrupt as stopped:
    stopped.args = (
      f"stopped before it was done; nothing is left at {args.destination}, and"
      " the same command starts anew",
    )
    raise
  print(f"written: {args.destination}, {_FORMATS[args.to]}")
  name = args.destination.rstrip("/").rpartition("/")[2]
  if args.to == "t5x" and not re.fullmatch(r"checkpoint_\d+", name):
    print(
      "  T5X finds it by itself when it is called checkpoint_<step> in the"
      " folder of a run; as CHECKPOINT_PATH any name will do"
    )


def parse_fields(settings: Sequence[str]) -> dict[str, Any]:
  """{field of a config: value} of "NAME=VALUE" texts.

  Raises:
    UserError: no "=", an unknown field, or one that is given twice.
  """
  fields: dict[str, Any] = {}
  for text in settings:
    name, equals, value = text.partition("=")
    if not equals or name not in _FIELDS or value == "None":
      raise UserError(
        f"--set {text}: expected NAME=VALUE with a field of a model's config:"
        f" {', '.join(_FIELDS)}"
      )
    if name in fields:
      raise UserError(f"--set {name} is given twice; give it once")
    fields[name] = _value(name, value)
  return fields


def description(checkpoint: Checkpoint) -> list[str]:
  """What it is and what is assumed of it: a title and its points.

  "assumed" marks what --set can say otherwise.
  """
  size_bytes = sum(leaf.size_bytes for leaf in checkpoint.leaves.values())
  types = sorted({leaf.dtype for leaf in checkpoint.leaves.values()})
  facts = [
    registry.layout_of(checkpoint.config).in_words(checkpoint.config),
    " and ".join(types),
    f"{size_bytes / 1e6:,.1f} MB",
  ]
  if checkpoint.step is not None:
    facts.append(f"step {checkpoint.step}")
  if checkpoint.slots:
    facts.append("with Adafactor's slots")
  assumed = [
    f"{'assumed ' * (sentence.partition(':')[0] in _FIELDS)}{sentence}"
    for sentence in checkpoint.assumed
  ]
  title = f"{checkpoint.path}: {checkpoint.layout}"
  return [title, ", ".join(facts), *assumed]


def table(planned: conversion.Plan) -> list[str]:
  """A line for each array: its name there and here, its shape and type."""
  checkpoint = planned.checkpoint
  rows = [("source", "destination", "shape", "type")]
  sources = expected_leaves.table(checkpoint.format, checkpoint.config)
  targets = expected_leaves.table(planned.to, checkpoint.config)
  for name, leaf in checkpoint.leaves.items():
    old, (new, shape) = sources[name][0], targets[name]
    new = "the same" if new == old else new
    rows.append((old, new, str(shape).replace(" ", ""), leaf.dtype))
  for name, leaf in checkpoint.slots.items():
    shape = str(leaf.shape).replace(" ", "")
    rows.append((f"slot {name}", "the same", shape, leaf.dtype))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
  count = registry.num_parameters(checkpoint.config)
  leaves = [*checkpoint.leaves.values(), *checkpoint.slots.values()]
  size_bytes = sum(leaf.size_bytes for leaf in leaves)
  lines.append(
    f"{len(leaves)} arrays, {count:,} parameters, {size_bytes:,} bytes"
  )
  return lines


def _value(name: str, text: str) -> Any:
  """A number or name as it is written, "gelu,linear" as a tuple."""
  if name == "mlp_activations" and not text.startswith(("(", "[")):
    return tuple(part.strip() for part in text.split(","))
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text
