"""Damaged, foreign and hostile inputs: one line, exit code 2, nothing written.

Through the command, as a user would meet them. What cannot be noticed is
written down as well: T5X's zarr arrays are gzip streams with a checksum, and
gkd's folders have hashes, but safetensors files have none.
"""

import json
import pickle
import shutil

import msgpack
import numpy as np
import pytest

from gkd.checkpoints import conversion
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.native import native_checkpoint
from gkd.cli import main as command
from tests.checkpoints import tiny_models


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
  """A folder in each format, of the same model."""
  root = tmp_path_factory.mktemp("sound")
  made = tiny_models.make(slots=True)
  for name in ("gkd", "hf"):
    (root / name).mkdir()
  native_checkpoint.write(root / "gkd", made)
  hf_folder.write(root / "hf", made)
  conversion.convert(root / "gkd", root / "t5x", to="t5x", slots=True)
  return root


@pytest.fixture
def refused(tmp_path, capsys):
  """`refused(source)`: the one line that every conversion of it ends with."""

  def run(source):
    before = sorted(entry.name for entry in tmp_path.iterdir())
    said = set()
    for to in ("gkd", "t5x", "hf"):
      arguments = ["convert", str(source), str(tmp_path / "out"), f"--to={to}"]
      if to == "hf":
        arguments.append("--tokenizer=none")
      code = command.main(arguments)
      lines = capsys.readouterr().err.splitlines()
      lines = [line for line in lines if not line.startswith("converting: ")]
      assert (code, len(lines)) == (2, 1), lines
      said.add(lines[0])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before
    assert len(said) == 1, said
    return said.pop()

  return run


@pytest.fixture
def copied(sound, tmp_path):
  def copy(name):
    return shutil.copytree(sound / name, tmp_path / name)

  return copy


def largest_file(folder):
  return max(folder.rglob("*"), key=lambda f: f.is_file() and f.stat().st_size)


@pytest.mark.parametrize("name", ["gkd", "t5x", "hf"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_truncated_file(copied, refused, name, kept):
  folder = copied(name)
  file = largest_file(folder)
  content = file.read_bytes()
  file.write_bytes(content[: int(kept * len(content))])
  assert str(folder) in refused(folder)


@pytest.mark.parametrize("name", ["gkd", "t5x", "hf"])
def test_every_file_of_noise(copied, refused, name):
  """Each file in turn; none may be taken for what it was."""
  folder = copied(name)
  noise = np.random.default_rng(0).bytes(3000)
  unread = {"README.md", "generation_config.json"}
  small = [f for f in sorted(folder.rglob("*")) if f.is_file()]
  picked = small if len(small) < 20 else [*small[:4], *small[-4:]]
  for file in picked:
    if file.name in unread or not file.stat().st_size:
      continue
    if "param_states" in str(file):
      continue  # slots, which nobody asked for here
    content = file.read_bytes()
    file.write_bytes(noise)
    refused(folder)
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["gkd", "t5x", "hf"])
def test_a_missing_file(copied, refused, name):
  folder = copied(name)
  if name == "t5x":
    shutil.rmtree(folder / "target.encoder.layers_1.mlp.wo.kernel")
  else:
    largest_file(folder).unlink()
  refused(folder)


def test_one_flipped_bit_where_it_can_be_noticed(copied, refused):
  """Ours by sha256, T5X by gzip's CRC; see below for Hugging Face."""
  for name in ("gkd", "t5x"):
    folder = copied(name)
    file = folder / "target.token_embedder.embedding" / "0.0"
    if name == "gkd":
      file = largest_file(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    refused(folder)


def test_a_flipped_bit_of_safetensors_cannot_be_noticed(copied, tmp_path):
  """The format has no checksum: another number is a number."""
  folder = copied("hf")
  file = folder / "model.safetensors"
  content = bytearray(file.read_bytes())
  content[-5] ^= 1
  file.write_bytes(bytes(content))
  conversion.convert(folder, tmp_path / "out", to="gkd")


def test_a_half_written_t5x_folder(sound, tmp_path, refused):
  partly = tmp_path / "checkpoint_7.tmp-1700000000"
  shutil.copytree(sound / "t5x", partly)
  assert "half-written" in refused(partly)
  copy = shutil.copytree(sound / "t5x", tmp_path / "checkpoint_8")
  (copy / "checkpoint").unlink()
  assert "half-written or not wholly copied" in refused(copy)


def test_a_checkpoint_of_ours_that_was_never_finished(copied, refused):
  folder = copied("gkd")
  (folder / "sha256.json").unlink()
  refused(folder)


def test_an_empty_or_foreign_folder(tmp_path, refused):
  (tmp_path / "empty").mkdir()
  assert "is empty" in refused(tmp_path / "empty")
  assert "there is no folder" in refused(tmp_path / "none")


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "t5gemma", None])
def test_another_family_of_hugging_face(copied, refused, model_type):
  folder = copied("hf")
  config = tiny_models.read_json(folder / "config.json")
  config["model_type"] = model_type
  (folder / "config.json").write_text(json.dumps(config))
  assert "config.json" in refused(folder)


@pytest.mark.parametrize(
  ("field", "value"),
  [("d_model", 8), ("num_layers", 3), ("d_kv", 5), ("vocab_size", 40)],
)
def test_other_sizes_in_config_json(copied, refused, field, value):
  folder = copied("hf")
  tiny_models.rewrite_json(folder / "config.json", **{field: value})
  assert any(
    word in refused(folder) for word in ("missing", "instead of", "left over")
  )


def test_another_model_in_t5x(copied, refused):
  """One layer of another width; one array that no T5 has."""
  folder = copied("t5x")
  first = folder / "target.encoder.layers_0.mlp.wo.kernel"
  second = folder / "target.encoder.layers_0.attention.out.kernel"
  shutil.rmtree(first)
  shutil.copytree(second, first)
  refused(folder)


class Bomb:
  """Makes a file when it is unpickled."""

  def __init__(self, file):
    self.file = file

  def __reduce__(self):
    return open, (str(self.file), "w")


PICKLES = ("pytorch_model.bin", "model.pt", "model.pkl", "rust_model.ckpt")


@pytest.mark.parametrize("name", PICKLES)
def test_no_pickle_is_opened(tmp_path, sound, refused, name):
  """Alone, beside a config, and in the place of what is read."""
  fired = tmp_path / "fired"
  bomb = pickle.dumps(Bomb(fired))
  alone = tmp_path / "alone"
  alone.mkdir()
  (alone / name).write_bytes(bomb)
  beside = tmp_path / "beside"
  beside.mkdir()
  shutil.copy(sound / "hf" / "config.json", beside)
  (beside / name).write_bytes(bomb)
  for path in (alone, alone / name, beside):
    said = refused(path)
    assert "from_pretrained" in said or "model.safetensors" in said, said
  assert not fired.exists()
  pickle.loads(bomb).close()  # it would have
  assert fired.exists()


@pytest.mark.parametrize(
  ("format", "file"),
  [
    ("hf", "model.safetensors"),
    ("hf", "config.json"),
    ("t5x", "checkpoint"),
    ("t5x", "target.encoder.encoder_norm.scale/0"),
    ("gkd", "metadata.json"),
    ("gkd", "state/_METADATA"),
  ],
)
def test_a_pickle_in_the_place_of_another_file(
  copied, refused, tmp_path, format, file
):
  fired = tmp_path / "fired"
  folder = copied(format)
  (folder / file).write_bytes(pickle.dumps(Bomb(fired)))
  refused(folder)
  assert not fired.exists()


def test_extensions_of_msgpack_run_nothing(copied, refused):
  """An object of an unknown kind inside T5X's own file."""
  folder = copied("t5x")
  packed = msgpack.packb(
    {"optimizer": msgpack.ExtType(42, pickle.dumps(Bomb(folder / "fired")))}
  )
  (folder / "checkpoint").write_bytes(packed)
  refused(folder)
  assert not (folder / "fired").exists()
