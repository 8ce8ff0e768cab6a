"""A model on disk, whatever its format: all but the arrays, which come later.

Readers (`t5x`, `hf`, `native`) make it; writers and `source.load_params` take
it. Arrays are read one at a time, so that memory stays near the largest.

  checkpoint = source.open_checkpoint("t5_1_1_lm100k_base/checkpoint_1100000")
  for name, leaf in checkpoint.leaves.items():
    array = leaf.read()
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any
from typing import Literal

import numpy as np

from gkd import trees
from gkd.models import registry

Format = Literal["gkd", "t5x", "hf"]
# Keys of `Checkpoint.metadata`: sha256 of the vocabulary that the model was
# trained with, and `ContentHash` of its parameters.
VOCABULARY_KEY = "vocabulary_sha256"
CONTENT_KEY = "content_sha256"


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One array, not read yet.

  Attributes:
    shape: as `read` gives it.
    dtype: "float32" or "bfloat16", as stored.
    read: the array, C-contiguous, exactly as stored; of `zarr_arrays` also the
      part `[:, i]` of it, as `read(i)`.
  """

  shape: tuple[int, ...]
  dtype: str
  read: Callable[..., np.ndarray]

  @property
  def size_bytes(self) -> int:
    return int(np.prod(self.shape)) * (2 if self.dtype == "bfloat16" else 4)

  def map(
    self,
    function: Callable[[np.ndarray], np.ndarray],
    shape: tuple[int, ...] | None = None,
    dtype: str | None = None,
  ) -> "Leaf":
    """The function of this array, computed when it is read.

    Args:
      function: of the array.
      shape: of its result; None for the same.
      dtype: of its result; None for the same.
    """

    def read(*layer: int) -> np.ndarray:
      return function(self.read(*layer))

    return Leaf(shape or self.shape, dtype or self.dtype, read)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """A model on disk.

  Attributes:
    path: folder of the one checkpoint that was opened.
    home: folder of what belongs to it (tokenizer, run.json): the run's folder
      of a run's checkpoint, else, and where it is None, `path`.
    format: "gkd", "t5x" or "hf".
    layout: the format in words, "T5X, msgpack and zarr, one array a layer".
    family: of the model, see `models.registry`.
    config: sizes and options; of a family that is not registered the saved
      fields, a dict.
    leaves: {name, slash-separated: parameter}, sorted; of T5 T5X's unscanned
      names.
    step: absolute step at which it was saved, those before the run included;
      None where the format does not say.
    slots: {"v_row/<name of the parameter>": Adafactor slot}, also v_col, v and
      m, with the shapes of T5X's unscanned layout; {} where there are none.
    assumed: sentences, each about what the format did not say.
    metadata: JSON that the format keeps beside the arrays, {} for none.
  """

  path: Path
  home: Path | None = None
  format: Format
  layout: str
  family: str = registry.T5
  config: Any
  leaves: Mapping[str, Leaf]
  step: int | None = None
  slots: Mapping[str, Leaf] = dataclasses.field(default_factory=dict)
  assumed: tuple[str, ...] = ()
  metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if self.home is None:
      object.__setattr__(self, "home", Path(self.path))

  @property
  def ids_known(self) -> bool:
    """Whether the number of real ids is known, not only that of the rows."""
    if any(text.startswith("vocabulary_size:") for text in self.assumed):
      return False
    if self.family != registry.T5:
      return True
    is_padded = self.config.vocabulary_size < self.config.vocab_size
    return bool(self.metadata.get(VOCABULARY_KEY)) or is_padded

  @functools.cached_property
  def content_sha256(self) -> str:
    """Identity of the parameters, wherever and in whatever format they lie.

    `ContentHash` of all leaves, or, of a run's checkpoint, a hash of its files.
    Where the format does not keep it, every array is read, unless
    `source.load_params` has read them before.
    """
    if known := self.metadata.get(CONTENT_KEY):
      return known
    content = ContentHash()
    for name, leaf in self.leaves.items():
      content.add(name, leaf.read())
    return content.hexdigest()


class ContentHash:
  """sha256 over parameters: name, shape, type and bytes, sorted by name.

  Equal for equal parameters, however and whenever they were saved.
  """

  def __init__(self):
    self._hash = hashlib.sha256()

  def add(self, name: str, array: np.ndarray) -> None:
    """Takes the next array; names have to come sorted."""
    head = json.dumps([name, list(array.shape), array.dtype.name])
    self._hash.update(head.encode() + b"\n")
    flat = np.ascontiguousarray(array).reshape(-1)
    self._hash.update(flat.view(np.uint8).data)

  def hexdigest(self) -> str:
    return self._hash.hexdigest()


def content_sha256(params: Any) -> str:
  """`ContentHash` of a tree of arrays."""
  content = ContentHash()
  for name, leaf in trees.flatten(params).items():
    content.add(name, np.asarray(leaf))
  return content.hexdigest()
