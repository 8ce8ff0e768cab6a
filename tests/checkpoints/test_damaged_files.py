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

from gkd.cli import main as command
from tests.checkpoints import tiny_models

FORMATS = ("gkd", "t5x", "hf")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
  """A folder in each format, of the same model."""
  root = tmp_path_factory.mktemp("sound")
  for name in FORMATS:
    tiny_models.save(root / name, tiny_models.make(slots=True), name)
  return root


@pytest.fixture
def copied(sound, tmp_path):
  return lambda name: shutil.copytree(sound / name, tmp_path / name)


@pytest.fixture
def refused(tmp_path, capsys):
  """`refused(source)`: the one line that its conversion ends with."""

  def run(source, formats=("gkd",)):
    before = sorted(entry.name for entry in tmp_path.iterdir())
    messages = set()
    for to in formats:
      arguments = ["convert", str(source), str(tmp_path / "out"), f"--to={to}"]
      arguments += ["--tokenizer=none"] * (to == "hf")
      code = command.main(arguments)
      lines = capsys.readouterr().err.splitlines()
      lines = [line for line in lines if not line.startswith("converting: ")]
      assert (code, len(lines)) == (2, 1), lines
      messages.add(lines[0])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before
    assert len(messages) == 1, messages
    return messages.pop()

  return run


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_flipped_or_missing_file(copied, refused, name):
  """By every conversion; a flipped bit where the format has a checksum."""
  folder = copied(name)
  below = "target.*/*" if name == "t5x" else "**/*"  # slots are not read here
  files = (file for file in folder.glob(below) if file.is_file())
  file = max(files, key=lambda file: file.stat().st_size)
  content = file.read_bytes()
  for kept in (0, 0.5, 0.99):
    file.write_bytes(content[: int(kept * len(content))])
    assert str(folder) in refused(folder, FORMATS)
  if name != "hf":
    file.write_bytes(content)
    tiny_models.flip_a_bit(file)
    refused(folder)
  file.unlink()
  refused(folder)


def test_a_flipped_bit_of_safetensors_cannot_be_noticed(copied, tmp_path):
  """The format has no checksum: another number is a number."""
  folder = copied("hf")
  tiny_models.flip_a_bit(folder / "model.safetensors", -5)
  tiny_models.convert(folder, tmp_path / "out", to="gkd")


@pytest.mark.parametrize("name", FORMATS)
def test_every_file_of_noise(copied, refused, name):
  """Each file in turn; none may be taken for what it was."""
  folder = copied(name)
  noise = np.random.default_rng(0).bytes(3000)
  files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
  for file in files if len(files) < 20 else [*files[:4], *files[-4:]]:
    if file.name == "README.md":
      continue
    if "param_states" in str(file) or not file.stat().st_size:
      continue  # slots, which nobody asked for here
    content = file.read_bytes()
    file.write_bytes(noise)
    refused(folder)
    file.write_bytes(content)


class Bomb:
  """Makes a file when it is unpickled."""

  def __init__(self, file):
    self.file = file

  def __reduce__(self):
    return open, (str(self.file), "w")


@pytest.fixture
def bomb(tmp_path):
  """A pickle; afterwards nothing has opened it, and it would have worked."""
  pickled = pickle.dumps(Bomb(tmp_path / "fired"))
  yield pickled
  assert not (tmp_path / "fired").exists()
  pickle.loads(pickled).close()
  assert (tmp_path / "fired").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "rust_model.ckpt"])
def test_no_pickle_is_opened(tmp_path, sound, refused, bomb, name):
  """Alone, by its own name, and beside a config."""
  folder = tmp_path / "model"
  folder.mkdir()
  (folder / name).write_bytes(bomb)
  assert "from_pretrained" in refused(folder)
  assert "from_pretrained" in refused(folder / name)
  shutil.copy(sound / "hf" / "config.json", folder)
  assert "from_pretrained" in refused(folder)


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
  copied, refused, bomb, name, file
):
  folder = copied(name)
  (folder / file).write_bytes(bomb)
  refused(folder)


def test_extensions_of_msgpack_run_nothing(copied, refused, bomb):
  """An object of an unknown kind inside T5X's own file."""
  folder = copied("t5x")
  packed = msgpack.packb({"optimizer": msgpack.ExtType(42, bomb)})
  (folder / "checkpoint").write_bytes(packed)
  refused(folder)
