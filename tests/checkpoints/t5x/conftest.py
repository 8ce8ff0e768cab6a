"""Copies of T5X's checkpoints that a test may change."""

import shutil

import pytest


@pytest.fixture
def copied(t5x_checkpoint, tmp_path):
  """`copied()`: the folder of a copy, of legacy layout at step 10."""

  def copy(model="t5_1_1_tiny", layout="legacy", step=10):
    saved = t5x_checkpoint(model, layout, step)
    return shutil.copytree(saved, tmp_path / f"checkpoint_{step}")

  return copy
