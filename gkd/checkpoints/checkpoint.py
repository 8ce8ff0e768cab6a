"""A model on disk, whatever its format: all but the arrays, which come later.

Readers (`t5x`, `hf`, `gguf`, `native`) make it; writers and
`source.load_params` take it. Arrays are read one at a time, so that memory
stays near the largest.
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

Format = Literal["gkd", "t5x", "hf", "gguf"]  # the last is only read
# Keys of `Checkpoint.metadata`: sha256 of the vocabulary that the model was
# trained with, and `content_sha256` of its parameters.
VOCABULARY_KEY = "vocabulary_sha256"
CONTENT_KEY = "content_sha256"
LICENSE_KEY = "license"  # of the model, as its format says it


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
    """A function of this array, computed when it is read.

    Args:
      function: of the array.
      shape: of the result, if it is another one.
      dtype: of the result, if it is another one.
    """

    def read(*layer: int) -> np.ndarray:
      return function(self.read(*layer))

    return Leaf(shape or self.shape, dtype or self.dtype, read)

  def transposed_if(self, transposed: bool) -> "Leaf":
    """The array, or its transpose."""
    if not transposed:
      return self
    return self.map(lambda x: np.ascontiguousarray(x.T), self.shape[::-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """A model on disk.

  Attributes:
    path: folder of the one checkpoint that was opened, or the GGUF file.
    home: folder of its tokenizer and run.json: of a run's checkpoint the run's,
      else, and where it is None, `path`.
    format: "gkd", "t5x", "hf" or "gguf".
    layout: the format in words, "T5X, msgpack and zarr, one array a layer".
    family: of the model, see `models.registry`.
    config: of the model; a dict of the saved fields where no such family is
      registered.
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
    if registry.layout_of(self.config) is None:
      return True
    is_padded = self.config.vocabulary_size < self.config.vocab_size
    return bool(self.metadata.get(VOCABULARY_KEY)) or is_padded

  @functools.cached_property
  def content_sha256(self) -> str:
    """`hash_array` of all leaves, or, of a run's checkpoint, of its files.

    Where the format does not keep it, every array is read, unless
    `source.load_params` has read them before.
    """
    if known := self.metadata.get(CONTENT_KEY):
      return known
    content = hashlib.sha256()
    for name, leaf in self.leaves.items():
      hash_array(content, name, leaf.read())
    return content.hexdigest()


def batches(leaves: Mapping[str, Leaf], max_bytes: int) -> list[list[str]]:
  """Names in order, those together that fit; a larger array is alone."""
  names: list[list[str]] = [[]]
  size_bytes = 0
  for name, leaf in leaves.items():
    if names[-1] and size_bytes + leaf.size_bytes > max_bytes:
      names.append([])
      size_bytes = 0
    names[-1].append(name)
    size_bytes += leaf.size_bytes
  return names


def content_sha256(params: Any) -> str:
  """`hash_array` of all arrays of a tree."""
  content = hashlib.sha256()
  for name, leaf in trees.flatten(params).items():
    hash_array(content, name, np.asarray(leaf))
  return content.hexdigest()


def hash_array(content: Any, name: str, array: np.ndarray) -> None:
  """Adds name, shape, type and bytes to a hash; names have to come sorted."""
  head = json.dumps([name, list(array.shape), array.dtype.name])
  content.update(head.encode() + b"\n")
  flat = np.ascontiguousarray(array).reshape(-1)
  content.update(flat.view(np.uint8).data)
