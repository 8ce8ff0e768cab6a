"""Names and shapes in the dry run are those of the files."""

import pytest

from gkd.checkpoints import conversion
from gkd.checkpoints import stored_names
from gkd.checkpoints.native import native_checkpoint
from tests.checkpoints import tiny_models


@pytest.mark.parametrize("bias_per_layer", [False, True])
def test_t5x_has_the_arrays_that_are_announced(tmp_path, bias_per_layer):
  """T5X's folders, one an array; of stacked layers each is named once."""
  made = tiny_models.make(bias_per_layer=bias_per_layer)
  (tmp_path / "ours").mkdir()
  native_checkpoint.write(tmp_path / "ours", made)
  conversion.convert(tmp_path / "ours", tmp_path / "t5x", to="t5x")
  announced = {}
  for stored, shape in stored_names.table("t5x", made.config).values():
    announced[stored.partition("[")[0]] = list(shape)
  metadata = {
    file.parent.name: tiny_models.read_json(file)["shape"]
    for file in (tmp_path / "t5x").glob("*/.zarray")
  }
  assert announced == metadata


def test_ours_are_the_names_of_design():
  config = tiny_models.make().config
  name = "encoder/layers_0/mlp/wo/kernel"
  assert stored_names.table("gkd", config)[name] == (name, (24, 16))
