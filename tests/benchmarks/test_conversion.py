"""The bench of conversions draws the same model again and watches a process."""

import os

import numpy as np
import pytest

from benchmarks import conversion
from gkd.checkpoints import source


def test_a_model_is_drawn_array_by_array_and_the_same_again():
  model = conversion.random_model("tiny")
  for leaf in model.leaves.values():
    array = leaf.read()
    assert (array.shape, array.dtype) == (leaf.shape, np.float32)
    np.testing.assert_array_equal(array, leaf.read())
  large = conversion.random_model("large")
  assert sum(leaf.size_bytes for leaf in large.leaves.values()) > 3e9


def test_a_step_is_watched_in_a_process_of_its_own(tmp_path):
  generated = conversion.Path("generated")
  found = conversion._watched("tiny", generated, tmp_path / "0_hf", "hf")
  assert found["step"] == "generate → hf"
  assert found["seconds"] > 0
  assert found["cpu_seconds"] > 0
  assert found["peak_anonymous_mb"] >= found["before"]["anonymous_mb"] > 10
  opened = source.open_checkpoint(tmp_path / "0_hf")
  wanted = conversion.random_model("tiny").leaves
  assert list(opened.leaves) == list(wanted)
  for name, leaf in wanted.items():
    np.testing.assert_array_equal(opened.leaves[name].read(), leaf.read())


def test_memory_is_what_a_process_has():
  before = conversion._memory(os.getpid())["anonymous_mb"]
  held = np.ones(50_000_000, np.uint8)
  after = conversion._memory(os.getpid())["anonymous_mb"]
  assert 45 < after - before < 60
  del held


def test_folders_that_differ_are_noticed(tmp_path):
  for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
    (tmp_path / name / "deep").mkdir(parents=True)
    (tmp_path / name / "deep" / "file").write_text(text)
    (tmp_path / name / "README.md").write_text(name)  # the card is not compared
  assert conversion._compared(tmp_path / "a", tmp_path / "b") == 1
  with pytest.raises(RuntimeError, match=r"1 files of .* differ"):
    conversion._compared(tmp_path / "a", tmp_path / "c")
  (tmp_path / "b" / "more").write_text("x")
  with pytest.raises(RuntimeError, match="have other files"):
    conversion._compared(tmp_path / "a", tmp_path / "b")
