"""A model on disk, whatever its format: all but the arrays, which come later.

Readers (`t5x.py`, `hf.py`, `own.py`) make it, writers take it. Arrays are read
one at a time, so that memory stays near the largest of them.

  found = convert.open("t5_1_1_lm100k_base/checkpoint_1100000")
  for name, leaf in found.leaves.items():
    array = leaf.read()
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any
from typing import Literal

import numpy as np

from gkd.models.t5 import T5Config

Format = Literal["gkd", "t5x", "hf"]


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One array, not read yet.

  Attributes:
    shape: as `read` gives it.
    dtype: "float32" or "bfloat16", as stored.
    read: the array, C-contiguous, exactly as stored.
  """

  shape: tuple[int, ...]
  dtype: str
  read: Callable[[], np.ndarray]

  @property
  def size_bytes(self) -> int:
    return int(np.prod(self.shape)) * (2 if self.dtype == "bfloat16" else 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """A model on disk.

  Attributes:
    path: what was opened.
    format: "gkd", "t5x" or "hf".
    layout: the format in words, "T5X, msgpack and zarr, one array a layer".
    config: sizes and options.
    leaves: {T5X name, slash-separated, unscanned: parameter}, sorted.
    step: of the run that saved it; None where the format does not say.
    slots: {"v_row/<name of the parameter>": Adafactor slot}, also v_col, v and
      m, with the shapes of T5X's unscanned layout; {} where there are none.
    assumed: sentences, each about what the format did not say.
    about: JSON that the format keeps beside the arrays, {} for none.
  """

  path: Path
  format: Format
  layout: str
  config: T5Config
  leaves: Mapping[str, Leaf]
  step: int | None = None
  slots: Mapping[str, Leaf] = dataclasses.field(default_factory=dict)
  assumed: tuple[str, ...] = ()
  about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
