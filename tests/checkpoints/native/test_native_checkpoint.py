"""Our layout: written array by array, and read back bit for bit."""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import pytest

from gkd import trees
from gkd.checkpoints import models
from gkd.checkpoints import one_by_one
from gkd.checkpoints import store
from gkd.checkpoints import trained
from gkd.checkpoints.native import native_checkpoint
from gkd.text import vocabulary
from gkd.types import UserError
from tests.checkpoints import tiny_models
from tests.checkpoints.test_store import flip_a_bit


def write(folder, checkpoint, **options):
  folder.mkdir()
  native_checkpoint.write(folder, checkpoint, **options)
  return folder


@pytest.mark.parametrize("dtype", [np.float32, tiny_models.BFLOAT16])
def test_what_is_written_comes_back(tmp_path, dtype, monkeypatch):
  monkeypatch.setattr(one_by_one, "_SMALL_BYTES", 1000)
  monkeypatch.setattr(one_by_one, "_CHUNK_BYTES", 1500)  # several an array
  made = tiny_models.make(dtype=dtype, slots=True)
  found = native_checkpoint.open_checkpoint(write(tmp_path / "a", made), {})
  tiny_models.assert_same_arrays(found.leaves, made.leaves)
  tiny_models.assert_same_arrays(found.slots, made.slots)
  assert (found.config, found.step, found.format) == (made.config, 7, "gkd")


def test_it_is_a_checkpoint_that_orbax_loads_as_any_other(tmp_path):
  made = tiny_models.make(slots=True)
  folder = write(tmp_path / "a", made)
  wanted = {name: leaf.read() for name, leaf in made.leaves.items()}
  for params in (ocp.load(folder), models.load_params(folder)[0]):
    found = trees.flatten(jax.device_get(params))
    assert list(found) == list(wanted)
    for name, array in wanted.items():
      np.testing.assert_array_equal(found[name], array)
  saved = trees.flatten(jax.device_get(ocp.load(folder / "slots")))
  assert list(saved) == list(made.slots)
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trees.unflatten(wanted)
  )
  params, about = trained.load_trained(folder, like)
  assert about["step"] == 7
  assert trees.flatten(params).keys() == wanted.keys()


def test_a_model_saved_in_one_piece_is_read_array_by_array(tmp_path):
  """By `save_params`, from arrays that four devices hold parts of."""
  made = tiny_models.make()
  mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
  spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))

  def place(array):
    return jax.device_put(array, spec) if array.shape[0] % 4 == 0 else array

  params = trees.unflatten({n: place(x.read()) for n, x in made.leaves.items()})
  about = {"model": dataclasses.asdict(made.config)}
  models.save_params(tmp_path / "a", params, about)
  found = native_checkpoint.open_checkpoint(tmp_path / "a", {})
  tiny_models.assert_same_arrays(found.leaves, made.leaves)
  assert (found.config, found.step) == (made.config, None)


def test_the_same_parameters_count_as_the_same_model(tmp_path):
  """Whatever wrote them, and whatever stands beside them."""
  made = tiny_models.make()
  other = dataclasses.replace(made, step=8, metadata={"note": "x"})
  params = trees.unflatten({n: x.read() for n, x in made.leaves.items()})
  models.save_params(tmp_path / "at_once", params, {})
  folders = [write(tmp_path / "a", made), write(tmp_path / "b", other)]
  hashes = {
    trained.locate(folder).sha256 for folder in [*folders, tmp_path / "at_once"]
  }
  digest = hashlib.sha256()
  for name, leaf in made.leaves.items():
    head = json.dumps([name, list(leaf.shape), "float32"]) + "\n"
    digest.update(head.encode() + leaf.read().tobytes())
  assert hashes == {digest.hexdigest()}
  changed = write(tmp_path / "c", tiny_models.make(seed=1))
  assert trained.locate(changed).sha256 not in hashes


def make_run(folder, **changes):
  """A run with the checkpoints 2 and 4, as training saves them."""
  saves = store.Store(folder / "checkpoints")
  made = {step: tiny_models.make(seed=step, **changes) for step in (2, 4)}
  for step, checkpoint in made.items():
    params = trees.unflatten(
      {name: leaf.read() for name, leaf in checkpoint.leaves.items()}
    )
    state = {"params": params, "opt_state": [params], "step": np.int32(step)}
    saves.save(step, state)
  saves.wait()
  about = {
    "model": dataclasses.asdict(made[2].config),
    "vocabulary_sha256": "abc",
    "card": {"teacher": "Flan"},
  }
  trained.write_description(folder, about)
  return made


def test_of_a_run_the_newest_sound_checkpoint_is_read(tmp_path):
  run = tmp_path / "run"
  made = make_run(run)
  found = native_checkpoint.open_checkpoint(run, {})
  tiny_models.assert_same_arrays(found.leaves, made[4].leaves)
  assert (found.step, found.config) == (4, made[4].config)
  assert found.metadata["run"]["card"] == {"teacher": "Flan"}
  assert found.metadata["run_dir"] == str(run)
  one = native_checkpoint.open_checkpoint(run / "checkpoints" / "00000002", {})
  tiny_models.assert_same_arrays(one.leaves, made[2].leaves)
  assert (one.step, one.metadata) == (2, found.metadata)
  flip_a_bit(run / "checkpoints" / "00000004")
  assert native_checkpoint.open_checkpoint(run, {}).step == 2
  # The same model written on: what the run says stays known.
  folder = write(tmp_path / "model", one)
  again = native_checkpoint.open_checkpoint(folder, {})
  assert again.metadata["run"] == found.metadata["run"]
  assert again.metadata["vocabulary_sha256"] == "abc"
  assert again.metadata["converted_from"]["path"] == str(one.path)


def test_steps_before_the_run_are_counted(tmp_path):
  make_run(tmp_path)
  checkpoints = tmp_path / "checkpoints"
  (checkpoints / "00000002").rename(checkpoints / "00000000")
  tiny_models.rewrite_json(tmp_path / "run.json", first_step=1000)
  steps = [
    native_checkpoint.open_checkpoint(checkpoints / name, {}).step
    for name in ("00000000", "00000004")
  ]
  assert steps == [1000, 1004]
  for wrong in (None, "1000", -1):
    tiny_models.rewrite_json(tmp_path / "run.json", first_step=wrong)
    with pytest.raises(UserError, match=r"run.json: its first_step is .*resto"):
      native_checkpoint.open_checkpoint(tmp_path, {})


def test_fields_of_the_program_may_be_given_others_must_agree(tmp_path):
  folder = write(tmp_path / "a", tiny_models.make())
  given = {"dtype": "bfloat16", "dropout_rate": 0.0, "head_dim": 4}
  given["mlp_activations"] = ["gelu", "linear"]
  config = native_checkpoint.open_checkpoint(
    folder, given | {"emb_dim": None}
  ).config
  assert (config.dtype, config.dropout_rate, config.head_dim) == (
    "bfloat16",
    0.0,
    4,
  )
  with pytest.raises(UserError, match=r"head_dim=8 was given.*saved with 4"):
    native_checkpoint.open_checkpoint(folder, {"head_dim": 8})


def test_a_model_without_its_sizes_is_read_by_its_shapes(tmp_path):
  made = tiny_models.make()
  params = trees.unflatten({n: x.read() for n, x in made.leaves.items()})
  models.save_params(tmp_path / "a", params, {})
  found = native_checkpoint.open_checkpoint(tmp_path / "a", {})
  assert found.config == made.config
  assert any(x.startswith("mlp_activations") for x in found.assumed)


def test_the_tokenizer_lies_beside_the_parameters(tmp_path):
  words = vocabulary.load("characters:0123456789+=")
  folder = write(tmp_path / "a", tiny_models.make(), vocabulary=words)
  again = vocabulary.load(folder / "vocabulary" / "vocabulary.json")
  assert vocabulary.first_difference(again, words) is None
  about = native_checkpoint.open_checkpoint(folder, {}).metadata
  assert about["vocabulary_sha256"] == words.sha256
  assert about["vocabulary"] == words.spec()


def test_one_flipped_bit_is_refused_wherever_it_is(tmp_path):
  folder = write(tmp_path / "a", tiny_models.make(slots=True))
  for file in sorted(folder.rglob("*")):
    if not file.is_file() or not file.stat().st_size:
      continue
    content = file.read_bytes()
    for at in (0, len(content) // 2):
      flipped = bytearray(content)
      flipped[at] ^= 1
      file.write_bytes(bytes(flipped))
      with pytest.raises(UserError, match=r"damaged checkpoint|no finished"):
        native_checkpoint.open_checkpoint(folder, {})
    file.write_bytes(content)
  native_checkpoint.open_checkpoint(folder, {})


def test_arrays_that_go_while_they_are_read_are_one_line(tmp_path):
  folder = write(tmp_path / "a", tiny_models.make())
  leaf = native_checkpoint.open_checkpoint(folder, {}).leaves[
    "token_embedder/embedding"
  ]
  for file in folder.rglob("d/*"):
    file.unlink()
  with pytest.raises(UserError, match=r"embedding cannot be read") as error:
    leaf.read()
  assert "\n" not in str(error.value)


def test_a_folder_without_parameters_is_refused(tmp_path):
  saves = store.Store(tmp_path / "checkpoints")
  saves.save(1, {"other": np.zeros(2)})
  saves.wait()
  with pytest.raises(UserError, match="holds no parameters"):
    native_checkpoint.open_checkpoint(tmp_path, {})
