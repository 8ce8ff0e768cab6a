"""The tiny models of golden/t5x and how to read what T5X wrote of them."""

import gzip
import json
import tarfile

from flax import serialization
import numpy as np

from gkd.types import Batch
from gkd.types import Pair

SIZE = {
  "vocab_size": 128,
  "emb_dim": 32,
  "num_heads": 2,
  "num_encoder_layers": 2,
  "num_decoder_layers": 2,
  "head_dim": 16,
}
GATED = {"mlp_dim": 48, "mlp_activations": ("gelu", "linear")}
RELU = {
  "mlp_dim": 64,
  "mlp_activations": ("relu",),
  "logits_via_embedding": True,
}
# Folder -> options and the seed of T5X's init.
MODELS = {"t5_1_1_tiny": (GATED, 0), "t5_1_0_tiny": (RELU, 1)}


def load(path) -> dict[str, np.ndarray]:
  with np.load(path) as file:
    return dict(file)


def batch_of(arrays) -> Batch:
  """One of T5X's batches; packed where it has segments."""
  segments = positions = None
  if "decoder_segment_ids" in arrays:
    segments, positions = (
      Pair(arrays[f"encoder_{name}"], arrays[f"decoder_{name}"])
      for name in ("segment_ids", "positions")
    )
  rows = len(arrays["encoder_input_tokens"])
  return Batch(
    inputs=arrays["encoder_input_tokens"],
    input_mask=arrays["encoder_input_tokens"] > 0,
    targets=arrays["decoder_target_tokens"],
    weights=np.float32(arrays["decoder_loss_weights"]),
    rows=np.arange(rows, dtype=np.int32),
    source=np.zeros(rows, np.int32),
    segments=segments,
    positions=positions,
  )


def checkpoint_target(path) -> dict[str, np.ndarray]:
  """Parameters of a legacy T5X checkpoint whose arrays are single chunks."""
  named = {}
  with tarfile.open(path) as tar:
    for member in tar.getnames():
      folder, _, file = member.rpartition("/")
      name = folder.rpartition("/")[2]
      if file != ".zarray" or not name.startswith("target."):
        continue
      about = json.load(tar.extractfile(member))
      assert about["chunks"] == about["shape"]
      chunk = folder + "/" + ".".join("0" * len(about["shape"]))
      data = gzip.decompress(tar.extractfile(chunk).read())
      array = np.frombuffer(data, about["dtype"]).reshape(about["shape"])
      named[name.removeprefix("target.").replace(".", "/")] = array
  return named


def restore(folder) -> dict:
  """The tree in the msgpack file of a legacy T5X checkpoint."""
  return serialization.msgpack_restore((folder / "checkpoint").read_bytes())


def save(folder, tree) -> None:
  """Inverse of `restore`."""
  packed = serialization.msgpack_serialize(tree, in_place=True)
  (folder / "checkpoint").write_bytes(packed)
