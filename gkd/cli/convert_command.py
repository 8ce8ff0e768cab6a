"""`gkd convert`: what was found, what was assumed, what was written."""

import argparse
import ast
from collections.abc import Sequence
import dataclasses
import re
from typing import Any

from gkd.checkpoints import atomic_dir
from gkd.checkpoints import conversion
from gkd.checkpoints import expected_leaves
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.models import sizes
from gkd.models import t5_params
from gkd.models.t5 import T5Config
from gkd.types import UserError

# Flags whose value goes into the model card of a Hugging Face folder.
CARD_FIELDS = ("license", "teacher_license", "data_license")
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
  _check_flags(args, card)
  if args.destination:
    atomic_dir.check(args.source, args.destination)
  planned = conversion.plan(
    args.source,
    to=args.to,
    given=fields_of(args.set),
    dtype=args.dtype,
    step=args.step,
    slots=args.slots,
    tokenizer=args.tokenizer,
  )
  print("\n".join(description(planned.checkpoint)))
  for remark in planned.remarks:
    print(f"  {remark}")
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
  for hint in _hints(args):
    print(f"  {hint}")


def fields_of(settings: Sequence[str]) -> dict[str, Any]:
  """{field of T5Config: value} of "NAME=VALUE" texts.

  Raises:
    UserError: no "=", an unknown field, or one that is given twice.
  """
  known = [field.name for field in dataclasses.fields(T5Config)]
  given: dict[str, Any] = {}
  for text in settings:
    name, equals, value = text.partition("=")
    if not equals or name not in known:
      raise UserError(
        f"--set {text}: expected NAME=VALUE with a field of T5Config:"
        f" {', '.join(known)}"
      )
    if name in given:
      raise UserError(f"--set {name} is given twice; give it once")
    given[name] = _value(name, value)
  return given


def description(checkpoint: Checkpoint) -> list[str]:
  """What was found and assumed, in lines."""
  size_bytes = sum(leaf.size_bytes for leaf in checkpoint.leaves.values())
  types = sorted({leaf.dtype for leaf in checkpoint.leaves.values()})
  facts = [
    sizes.describe(checkpoint.config),
    " and ".join(types),
    f"{size_bytes / 1e6:,.1f} MB",
  ]
  if checkpoint.step is not None:
    facts.append(f"step {checkpoint.step}")
  if checkpoint.slots:
    facts.append("with Adafactor's slots")
  lines = [f"{checkpoint.path}: {checkpoint.layout}", f"  {', '.join(facts)}"]
  return lines + [f"  {_told(sentence)}" for sentence in checkpoint.assumed]


def _told(sentence: str) -> str:
  """Marks what --set can say otherwise."""
  fields = {field.name for field in dataclasses.fields(T5Config)}
  if sentence.partition(":")[0] in fields:
    return f"assumed {sentence}"
  return sentence


def table(planned: conversion.Plan) -> list[str]:
  """A line for each array: its name there and here, its shape and type."""
  checkpoint = planned.checkpoint
  rows = [("source", "destination", "shape", "type")]
  there = expected_leaves.table(checkpoint.format, checkpoint.config)
  here = expected_leaves.table(planned.to, checkpoint.config)
  for name, leaf in checkpoint.leaves.items():
    was, (will_be, shape) = there[name][0], here[name]
    will_be = "the same" if will_be == was else will_be
    rows.append((was, will_be, str(shape).replace(" ", ""), leaf.dtype))
  for name, leaf in checkpoint.slots.items():
    shape = str(leaf.shape).replace(" ", "")
    rows.append((f"slot {name}", "the same", shape, leaf.dtype))
  widths = [max(len(row[i]) for row in rows) for i in range(3)]
  lines = [
    "  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]])
    for row in rows
  ]
  count = t5_params.num_parameters(checkpoint.config)
  leaves = [*checkpoint.leaves.values(), *checkpoint.slots.values()]
  size_bytes = sum(leaf.size_bytes for leaf in leaves)
  lines.append(
    f"{len(leaves)} arrays, {count:,} parameters, {size_bytes:,} bytes"
  )
  return lines


def _check_flags(args: argparse.Namespace, card: dict[str, str]) -> None:
  if not args.destination and not args.dry_run:
    raise UserError(
      "gkd convert needs a folder to write: gkd convert SRC DST --to=…, or"
      " --dry_run to see only what it would hold"
    )
  if card and args.to != "hf":
    raise UserError(
      f"--{next(iter(card))} has no effect: only a Hugging Face folder has a"
      " model card; leave it out"
    )


def _value(name: str, text: str) -> Any:
  """A number or name as it is written, "gelu,linear" as a tuple."""
  if name == "mlp_activations" and not text.startswith(("(", "[")):
    return tuple(part.strip() for part in text.split(","))
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text


def _hints(args: argparse.Namespace) -> list[str]:
  name = args.destination.rstrip("/").rpartition("/")[2]
  if args.to == "t5x" and not re.fullmatch(r"checkpoint_\d+", name):
    return [
      "T5X finds it by itself when it is called checkpoint_<step> in the folder"
      " of a run; as CHECKPOINT_PATH any name will do"
    ]
  return []
