"""From one format to another, array by array, whole or not at all.

convert("t5_1_1_lm100k_base/checkpoint_1100000", "models/base", to="hf")
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import os
from pathlib import Path
import shutil
from typing import Any

import numpy as np

from gkd.checkpoints import atomic_dir
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Format
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.conversion_plan import Plan
from gkd.checkpoints.conversion_plan import plan
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.native import native_checkpoint
from gkd.checkpoints.t5x import t5x_writer
from gkd.progress import Progress
from gkd.types import UserError


def convert(
  source: str | os.PathLike,
  destination: str | os.PathLike,
  *,
  to: Format,
  card: Mapping[str, str] | None = None,
  **options: Any,
) -> Checkpoint:
  """Converts a checkpoint; memory stays near its largest array.

  Args:
    source: of any format, see `source.open_checkpoint`.
    destination: a folder that does not exist or is empty; there whole or not
      at all.
    to: format to write.
    card: fields of the model card of a Hugging Face folder, see
      `model_card.text`.
    **options: given, dtype, step, slots and tokenizer, see `plan`.

  Returns:
    What was written; its arrays are read from the source.

  Raises:
    UserError: the source cannot be read or the destination not be written;
      then nothing is left at `destination`.
  """
  atomic_dir.check(source, destination)
  planned = plan(source, to=to, **options)
  write(planned, destination, card=card)
  return planned.checkpoint


def write(
  planned: Plan,
  destination: str | os.PathLike,
  *,
  card: Mapping[str, str] | None = None,
) -> None:
  """Writes what was planned, whole or not at all; see `convert`."""
  if card and planned.to != "hf":
    raise UserError(
      f"{', '.join(card)}: only a Hugging Face folder has a model card; leave"
      " it out"
    )
  vocabulary = planned.vocabulary
  with atomic_dir.create(destination) as partial:
    _check_space(planned, Path(destination).expanduser().absolute())
    with _progress(planned.checkpoint) as checkpoint:
      if planned.to == "t5x":
        t5x_writer.write(partial, checkpoint)
      elif planned.to == "gkd":
        native_checkpoint.write(partial, checkpoint, vocabulary=vocabulary)
      else:
        hf_folder.write(partial, checkpoint, vocabulary=vocabulary, card=card)


def _check_space(planned: Plan, path: Path) -> None:
  """Refuses what cannot fit, before hours of work end with a full disk."""
  checkpoint = planned.checkpoint
  leaves = [*checkpoint.leaves.values(), *checkpoint.slots.values()]
  needed = sum(leaf.size_bytes for leaf in leaves)
  if planned.to != "hf":  # the others are compressed, seldom to a half
    needed //= 2
  free = shutil.disk_usage(path.parent).free
  if needed > free:
    raise UserError(
      f"{path} would take at least {needed / 1e6:,.2f} MB, and"
      f" {free / 1e6:,.2f} MB are free there; free space or give another place"
    )


@contextlib.contextmanager
def _progress(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
  """The same checkpoint, which shows how much of it has been read."""
  total = sum(leaf.size_bytes for leaf in checkpoint.leaves.values())
  done = 0
  with Progress(
    round(total / 1e6), description="converting", unit="megabyte", delay=2.0
  ) as progress:

    def counted(leaf: Leaf) -> Leaf:
      def read() -> np.ndarray:
        nonlocal done
        array = leaf.read()
        before, done = done, done + leaf.size_bytes
        progress.update(round(done / 1e6) - round(before / 1e6))
        return array

      return Leaf(leaf.shape, leaf.dtype, read)

    leaves = {name: counted(leaf) for name, leaf in checkpoint.leaves.items()}
    yield dataclasses.replace(checkpoint, leaves=leaves)
