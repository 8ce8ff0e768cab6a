"""Small T5s on disk, made by NumPy: what comes back is compared with these."""

import json

import jax
import ml_dtypes
import numpy as np

from gkd import trees
from gkd.checkpoints import atomic_dir
from gkd.checkpoints import conversion
from gkd.checkpoints import source
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.native import native_checkpoint
from gkd.models import t5_params
from gkd.models.t5 import T5Config

BFLOAT16 = ml_dtypes.bfloat16
SIZE = {
  "vocab_size": 48,
  "emb_dim": 16,
  "num_heads": 3,
  "num_encoder_layers": 2,
  "num_decoder_layers": 3,
  "head_dim": 4,
  "mlp_dim": 24,
  "mlp_activations": ("gelu", "linear"),
}


def make_arrays(config, seed=0, dtype=np.float32) -> dict[str, np.ndarray]:
  """{T5X name: random array} of a config, sorted."""
  rng = np.random.default_rng(seed)
  return {
    name: rng.normal(size=row.shape).astype(dtype)
    for name, row in t5_params.table(config).items()
  }


def make(seed=0, dtype=np.float32, slots=False, **changes) -> Checkpoint:
  """A checkpoint of random arrays that no file holds yet."""
  config = T5Config.from_size(SIZE, **changes)
  arrays = make_arrays(config, seed, dtype)
  kinds = ("v_row", "v_col", "v", "m") if slots else ()
  saved = {
    f"{kind}/{name}": array.astype(np.float32) ** 2
    if kind == "v"
    else np.zeros(1, np.float32)
    for kind in kinds
    for name, array in arrays.items()
  }
  return Checkpoint(
    path="nowhere",
    format="t5x",
    layout="made by a test",
    config=config,
    leaves=as_leaves(arrays),
    step=7,
    slots=as_leaves(dict(sorted(saved.items()))),
  )


def save(folder, checkpoint, to="gkd", vocabulary=None, **options):
  """Writes a checkpoint in a format, slots included; returns the folder."""
  planned = conversion.Plan(checkpoint, to, vocabulary)
  conversion.write(planned, folder, **options)
  return folder


def save_params(path, params, metadata):
  """A saved model of any family, a tree of arrays; returns the folder."""
  arrays = trees.flatten(jax.tree.map(np.asarray, params))
  with atomic_dir.create(path) as partial:
    native_checkpoint.write_model(partial, as_leaves(arrays), metadata)
  return path


def convert(source, destination, *, to, **options) -> Checkpoint:
  """What `gkd convert` does; returns what was written."""
  planned = conversion.plan(source, to=to, **options)
  conversion.write(planned, destination)
  return planned.checkpoint


def read(path, **given):
  """Config and nested arrays of a checkpoint of any format."""
  checkpoint = source.open_checkpoint(path, **given)
  arrays = {name: leaf.read() for name, leaf in checkpoint.leaves.items()}
  return checkpoint.config, trees.unflatten(arrays)


def as_leaves(arrays) -> dict[str, Leaf]:
  return {
    name: Leaf(array.shape, array.dtype.name, lambda array=array: array)
    for name, array in arrays.items()
  }


def assert_same_arrays(leaves, wanted):
  """Names, shapes, types and every bit."""
  assert list(leaves) == list(wanted)
  for name, leaf in wanted.items():
    left, right = leaves[name].read(), leaf.read()
    assert leaves[name].shape == left.shape == right.shape, name
    assert leaves[name].dtype == str(left.dtype) == str(right.dtype), name
    assert left.tobytes() == right.tobytes(), name
    assert left.flags.c_contiguous


def flip_a_bit(file, at=None):
  """Of a byte, by default the middle one."""
  content = bytearray(file.read_bytes())
  content[len(content) // 2 if at is None else at] ^= 1
  file.write_bytes(bytes(content))


def files_of(folder) -> dict[str, bytes]:
  """{name: content} of all files below a folder."""
  return {
    str(file.relative_to(folder)): file.read_bytes()
    for file in sorted(folder.rglob("*"))
    if file.is_file()
  }


def read_json(file):
  return json.loads(file.read_text("utf-8"))


def rewrite_json(file, **changes):
  file.write_text(json.dumps(read_json(file) | changes))
