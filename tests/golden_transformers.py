"""How to read what transformers wrote of tiny models (golden/transformers)."""

import functools
import json

import numpy as np

from gkd import trees


@functools.cache
def load(path):
  """The options of a golden file, its parameters and its other arrays."""
  with np.load(path) as file:
    arrays = dict(file)
  options = json.loads(str(arrays.pop("options")))
  params = {
    name.removeprefix("params/"): arrays.pop(name).astype(np.float32)
    for name in list(arrays)
    if name.startswith("params/")
  }
  return options, trees.unflatten(params), arrays
