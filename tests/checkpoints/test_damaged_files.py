"""Damaged, foreign and hostile inputs: one line, exit code 2, nothing written.

Through the command, as a user would meet them. What cannot be noticed is
written down as well: T5X's zarr arrays are gzip streams with a checksum, and
gkd's folders have hashes, but safetensors files have none.
"""

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

FORMATS = ("gkd", "t5x", "hf")


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
  """`refused(source)`: the one line that its conversion ends with."""

  def run(source, formats=("gkd",)):
    before = sorted(entry.name for entry in tmp_path.iterdir())
    said = set()
    for to in formats:
      arguments = ["convert", str(source), str(tmp_path / "out"), f"--to={to}"]
      arguments += ["--tokenizer=none"] * (to == "hf")
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
  """The largest file of parameters; slots are not read here."""
  below = "target.*/*" if folder.name == "t5x" else "**/*"
  files = (file for file in folder.glob(below) if file.is_file())
  return max(files, key=lambda file: file.stat().st_size)


def _flip_a_bit(file):
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(bytes(content))


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_flipped_or_missing_file(copied, refused, name):
  """By every conversion; a flipped bit where the format has a checksum."""
  folder = copied(name)
  file = largest_file(folder)
  content = file.read_bytes()
  for kept in (0, 0.5, 0.99):
    file.write_bytes(content[: int(kept * len(content))])
    assert str(folder) in refused(folder, FORMATS)
  if name != "hf":
    file.write_bytes(content)
    _flip_a_bit(file)
    refused(folder)
  file.unlink()
  refused(folder)


def test_a_flipped_bit_of_safetensors_cannot_be_noticed(copied, tmp_path):
  """The format has no checksum: another number is a number."""
  folder = copied("hf")
  file = folder / "model.safetensors"
  content = bytearray(file.read_bytes())
  content[-5] ^= 1
  file.write_bytes(bytes(content))
  conversion.convert(folder, tmp_path / "out", to="gkd")


@pytest.mark.parametrize("name", FORMATS)
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


def test_a_half_written_t5x_folder(sound, tmp_path, refused):
  partly = tmp_path / "checkpoint_7.tmp-1700000000"
  shutil.copytree(sound / "t5x", partly)
  assert "half-written" in refused(partly)
  copy = shutil.copytree(sound / "t5x", tmp_path / "checkpoint_8")
  (copy / "checkpoint").unlink()
  assert "half-written or not wholly copied" in refused(copy)


def _never_finished(folder):
  (folder / "sha256.json").unlink()


def _another_width(folder):
  """One layer of another width, in T5X's folder."""
  first = folder / "target.encoder.layers_0.mlp.wo.kernel"
  shutil.rmtree(first)
  shutil.copytree(
    folder / "target.encoder.layers_0.attention.out.kernel", first
  )


def _config(**changes):
  def change(folder):
    tiny_models.rewrite_json(folder / "config.json", **changes)

  return change


@pytest.mark.parametrize(
  ("name", "change", "words"),
  [
    ("gkd", _never_finished, ["finished", "no sha256.json"]),
    ("t5x", _another_width, ["not of one checkpoint"]),
    ("hf", _config(model_type="bert"), ["config.json"]),
    ("hf", _config(model_type=None), ["config.json"]),
    ("hf", _config(d_model=8), ["instead of"]),
    ("hf", _config(num_layers=3), ["missing"]),
    ("hf", _config(d_kv=5), ["instead of"]),
    ("hf", _config(vocab_size=40), ["instead of"]),
  ],
)
def test_another_or_an_unfinished_model(copied, refused, name, change, words):
  folder = copied(name)
  change(folder)
  line = refused(folder)
  assert any(word in line for word in words), line


def test_an_empty_or_missing_folder(tmp_path, refused):
  (tmp_path / "empty").mkdir()
  assert "is empty" in refused(tmp_path / "empty")
  assert "there is no folder" in refused(tmp_path / "none")


class Bomb:
  """Makes a file when it is unpickled."""

  def __init__(self, file):
    self.file = file

  def __reduce__(self):
    return open, (str(self.file), "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "rust_model.ckpt"])
def test_no_pickle_is_opened(tmp_path, sound, refused, name):
  """Alone, beside a config, and in the place of what is read."""
  fired = tmp_path / "fired"
  bomb = pickle.dumps(Bomb(fired))
  alone, beside = tmp_path / "alone", tmp_path / "beside"
  for folder in (alone, beside):
    folder.mkdir()
    (folder / name).write_bytes(bomb)
  shutil.copy(sound / "hf" / "config.json", beside)
  for path in (alone, alone / name, beside):
    said = refused(path)
    assert "from_pretrained" in said or "model.safetensors" in said, said
  assert not fired.exists()
  pickle.loads(bomb).close()  # it would have
  assert fired.exists()


@pytest.mark.parametrize(
  ("name", "file"),
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
  copied, refused, tmp_path, name, file
):
  fired = tmp_path / "fired"
  folder = copied(name)
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
