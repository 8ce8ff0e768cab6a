"""Checkpoints that T5X wrote, unpacked once and read-only by agreement."""

import pathlib
import tarfile

import pytest


@pytest.fixture(scope="session")
def t5x_checkpoint(golden, tmp_path_factory):
  """`t5x_checkpoint("t5_1_1_tiny", "legacy", 10)`: the checkpoint's folder."""
  root = tmp_path_factory.mktemp("t5x")

  def unpacked(model: str, layout: str, step: int) -> pathlib.Path:
    folder = root / model / layout / f"checkpoint_{step}"
    if not folder.exists():
      file = golden / "t5x" / model / f"{layout}_checkpoint_{step}.tar.gz"
      with tarfile.open(file) as tar:
        tar.extractall(folder.parent, filter="data")
    return folder

  return unpacked
