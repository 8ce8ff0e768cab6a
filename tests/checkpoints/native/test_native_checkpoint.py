"""Our layout: written array by array, read back bit for bit, or not at all."""

import dataclasses
import hashlib
import json
import shutil

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import pytest

from gkd import trees
from gkd.checkpoints import store
from gkd.checkpoints import zarr_arrays
from gkd.checkpoints.checkpoint import content_sha256
from gkd.checkpoints.native import native_arrays
from gkd.checkpoints.native import native_checkpoint
from gkd.checkpoints.native import run_folder
from gkd.text import vocabulary
from gkd.types import UserError
from tests.checkpoints import tiny_models
from tests.checkpoints.test_store import flip_a_bit
from tests.checkpoints.test_store import make_state

ARRAYS = {
  "a/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
  "a/layers_1/scale": np.arange(5, dtype=np.float32),
  "a/zeros": np.zeros((6, 2), np.float32),
  "b": np.arange(14, dtype=ml_dtypes.bfloat16).reshape(7, 2),
}


def open_(folder, **given):
  return native_checkpoint.open_checkpoint(folder, given)


def open_unverified(folder):
  return native_checkpoint.open_checkpoint(folder, {}, verify=False)


def params_of(checkpoint):
  return trees.unflatten({n: x.read() for n, x in checkpoint.leaves.items()})


@pytest.mark.parametrize("batch_bytes", [1, 60, 1 << 20])
def test_orbax_loads_what_is_written_a_few_arrays_at_once(
  tmp_path, monkeypatch, batch_bytes
):
  monkeypatch.setattr(native_arrays, "_BATCH_BYTES", batch_bytes)
  monkeypatch.setattr(native_arrays, "_CHUNK_BYTES", 16)
  content = native_arrays.write_arrays(tmp_path, tiny_models.as_leaves(ARRAYS))
  assert content == content_sha256(trees.unflatten(ARRAYS))
  by_orbax = trees.flatten(jax.device_get(ocp.load(tmp_path)))
  leaves = zarr_arrays.open_tree(tmp_path / "state")
  assert list(by_orbax) == list(leaves) == list(ARRAYS)
  for name, array in ARRAYS.items():
    for loaded in (np.asarray(by_orbax[name]), leaves[name].read()):
      assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
      assert loaded.tobytes() == array.tobytes()


def test_any_tree_of_orbax_is_read_and_a_part_of_it(tmp_path):
  state = make_state(3)
  ocp.save(tmp_path / "c", state)
  everything = zarr_arrays.open_tree(tmp_path / "c" / "state")
  leaves = native_checkpoint._below(everything, "params/")
  wanted = trees.flatten(jax.tree.map(np.asarray, state.params))
  tiny_models.assert_same_arrays(leaves, tiny_models.as_leaves(wanted))
  everything = zarr_arrays.open_tree(tmp_path / "c" / "state")
  assert len(everything) > len(leaves)
  assert "params/half" in everything


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("_METADATA", None, "_METADATA cannot be read"),
    ("_METADATA", "{", "_METADATA cannot be read"),
    ("_METADATA", "[]", "_METADATA cannot be read"),
    ("_METADATA", '{"tree_metadata": {"x": {}}}', "_METADATA cannot be read"),
    ("manifest.ocdbt", None, "a.kernel cannot be read"),
  ],
)
def test_damaged_names_are_one_line(tmp_path, name, text, message):
  native_arrays.write_arrays(tmp_path, tiny_models.as_leaves(ARRAYS))
  file = tmp_path / "state" / name
  if text is None:
    file.unlink()
  else:
    file.write_text(text)
  with pytest.raises(UserError, match=message) as error:
    zarr_arrays.open_tree(tmp_path / "state")
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [np.float32, tiny_models.BFLOAT16])
def test_what_is_written_comes_back(tmp_path, dtype, monkeypatch):
  monkeypatch.setattr(native_arrays, "_BATCH_BYTES", 30_000)  # several
  made = tiny_models.make(dtype=dtype, slots=True)
  folder = tiny_models.save(tmp_path / "a", made)
  opened = open_(folder)
  tiny_models.assert_same_arrays(opened.leaves, made.leaves)
  tiny_models.assert_same_arrays(opened.slots, made.slots)
  assert (opened.config, opened.step, opened.format) == (made.config, 7, "gkd")
  assert (opened.home, opened.family) == (folder, "t5")
  folder.rename(tmp_path / "moved")
  tiny_models.assert_same_arrays(open_(tmp_path / "moved").leaves, made.leaves)


def test_a_description_comes_back_with_the_hash_of_the_parameters(tmp_path):
  made = tiny_models.make()
  about = {"model": dataclasses.asdict(made.config), "note": "äß"}
  opened = open_(
    tiny_models.save_params(tmp_path / "a", params_of(made), about)
  )
  tiny_models.assert_same_arrays(opened.leaves, made.leaves)
  assert (opened.config, opened.step) == (made.config, None)
  about["content_sha256"] = opened.content_sha256
  assert opened.metadata == json.loads(json.dumps(about))


def test_the_same_parameters_count_as_the_same_model(tmp_path):
  """Whatever wrote them, whatever stands beside them, wherever they lie."""
  made = tiny_models.make()
  other = dataclasses.replace(made, step=8, metadata={"note": "x"})
  tiny_models.save_params(tmp_path / "at_once", params_of(made), {})
  folders = [
    tiny_models.save(tmp_path / "a", made),
    tiny_models.save(tmp_path / "b", other),
    tmp_path / "at_once",
  ]
  hashes = {open_(folder).content_sha256 for folder in folders}
  digest = hashlib.sha256()
  for name, leaf in made.leaves.items():
    head = json.dumps([name, list(leaf.shape), "float32"]) + "\n"
    digest.update(head.encode() + leaf.read().tobytes())
  assert hashes == {digest.hexdigest()} == {made.content_sha256}
  changed = tiny_models.save(tmp_path / "c", tiny_models.make(seed=1))
  assert open_(changed).content_sha256 not in hashes


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    *(
      (name, content, message)
      for name in ("metadata.json", "run.json")
      for content, message in (
        ("{", "is not JSON .*"),
        ("[]", "is not a JSON object"),
        ("\udcff", "is not JSON .*"),
        ('{"model": 5}', "has model 5; expected an object"),
      )
    ),
    ("metadata.json", '{"assumed": 5}', "has assumed 5; expected a list"),
    ("metadata.json", '{"hf": [5]}', r"has hf \[5\]; expected an object"),
    ("metadata.json", '{"step": 1.5}', "has step 1.5; expected a whole number"),
  ],
)
def test_a_damaged_description_is_one_line(tmp_path, name, content, message):
  folder = tiny_models.save_params(tmp_path / "a", trees.unflatten(ARRAYS), {})
  (folder / name).write_text(content, "utf-8", "surrogateescape")
  read = {
    "metadata.json": lambda: open_unverified(folder),
    "run.json": lambda: run_folder.describe_run(folder),
  }[name]
  with pytest.raises(UserError, match=f"{name} {message}; .*restore") as error:
    read()
  assert "\n" not in str(error.value)


def make_run(folder, identity="one", **changes):
  """A run with the checkpoints 2 and 4, as training saves them."""
  saves = store.Store(folder / "checkpoints")
  made = {step: tiny_models.make(seed=step, **changes) for step in (2, 4)}
  for step, checkpoint in made.items():
    params = params_of(checkpoint)
    state = {"params": params, "opt_state": [params], "step": np.int32(step)}
    saves.save(step, state, {"identity": identity})
  saves.wait()
  about = {
    **native_checkpoint.description(made[2].config),
    "vocabulary_sha256": "abc",
    "identity": identity,
    "card": {"teacher": "Flan"},
  }
  run_folder.write_description(folder, about)
  return made


def test_of_a_run_the_newest_sound_checkpoint_is_read(tmp_path):
  run = tmp_path / "run"
  made = make_run(run)
  opened = open_(run)
  tiny_models.assert_same_arrays(opened.leaves, made[4].leaves)
  assert (opened.step, opened.config) == (4, made[4].config)
  assert opened.path == run / "checkpoints" / "00000004"
  assert opened.home == run
  assert opened.metadata["run"]["card"] == {"teacher": "Flan"}
  assert opened.metadata["run_dir"] == str(run)
  one = open_(run / "checkpoints" / "00000002")
  tiny_models.assert_same_arrays(one.leaves, made[2].leaves)
  assert (one.step, one.home) == (2, run)
  assert one.content_sha256 != opened.content_sha256
  listed = (one.path / "sha256.json").read_bytes()
  assert one.content_sha256 == hashlib.sha256(listed).hexdigest()
  flip_a_bit(run / "checkpoints" / "00000004")
  assert open_(run).step == 2
  assert open_unverified(run).step == 4
  # The same model written on: what the run says stays known.
  again = open_(tiny_models.save(tmp_path / "model", one))
  assert again.metadata["run"] == opened.metadata["run"]
  assert again.metadata["vocabulary_sha256"] == "abc"
  assert again.metadata["converted_from"]["path"] == str(one.path)


@pytest.mark.parametrize("verify", [True, False])
def test_a_checkpoint_is_known_by_its_content_and_not_by_its_name(
  tmp_path, verify
):
  run = tmp_path / "run"
  make_run(run)
  make_run(tmp_path / "other", "two")
  two, four = (run / "checkpoints" / f"0000000{n}" for n in (2, 4))

  def refusals():
    for path in (run, four):
      with pytest.raises(UserError) as error:
        native_checkpoint.open_checkpoint(path, {}, verify=verify)
      yield str(error.value)

  # An earlier version noted no identity.
  tiny_models.rewrite_json(run / "run.json", identity=None)
  assert open_(four).step == 4
  tiny_models.rewrite_json(run / "run.json", identity="one")
  two.rename(tmp_path / "kept")
  four.rename(two)
  (tmp_path / "kept").rename(four)
  for message in refusals():
    assert f"{four} holds the state after step 2, not 4 as its" in message
  shutil.rmtree(four)
  (tmp_path / "other" / "checkpoints" / "00000004").rename(four)
  for message in refusals():
    assert "of another run (identity two) than the run.json of" in message


def test_steps_before_the_run_are_counted(tmp_path):
  make_run(tmp_path)
  checkpoints = tmp_path / "checkpoints"
  tiny_models.rewrite_json(tmp_path / "run.json", initial_step=1000)
  steps = [open_(checkpoints / name).step for name in ("00000002", "00000004")]
  assert steps == [1002, 1004]
  for wrong in (None, "1000", -1):
    tiny_models.rewrite_json(tmp_path / "run.json", initial_step=wrong)
    with pytest.raises(UserError, match=r"run.json: its initial_step is .*re"):
      open_(tmp_path)


def test_fields_of_the_program_may_be_given_others_must_agree(tmp_path):
  folder = tiny_models.save(tmp_path / "a", tiny_models.make())
  given = {"dtype": "bfloat16", "dropout_rate": 0.0, "head_dim": 4}
  given |= {"mlp_activations": ["gelu", "linear"]}
  config = open_(folder, **given).config
  assert (config.dtype, config.dropout_rate) == ("bfloat16", 0.0)
  assert config.head_dim == 4
  with pytest.raises(UserError, match=r"head_dim=8 was given.*says 4"):
    open_(folder, head_dim=8)


def test_a_model_without_its_sizes_is_read_by_its_shapes(tmp_path):
  made = tiny_models.make()
  tiny_models.save_params(tmp_path / "a", params_of(made), {})
  opened = open_(tmp_path / "a")
  assert opened.config == made.config
  assert any(x.startswith("mlp_activations") for x in opened.assumed)
  assert not opened.ids_known


def test_the_tokenizer_lies_beside_the_parameters(tmp_path):
  words = vocabulary.load("characters:0123456789+=")
  folder = tiny_models.save(
    tmp_path / "a", tiny_models.make(), vocabulary=words
  )
  again = vocabulary.load(folder / "vocabulary" / "vocabulary.json")
  assert vocabulary.first_difference(again, words) is None
  opened = open_(folder)
  assert opened.metadata["vocabulary_sha256"] == words.sha256
  assert opened.metadata["vocabulary"] == words.spec()
  assert opened.ids_known


def test_one_flipped_bit_is_refused_wherever_it_is(tmp_path):
  folder = tiny_models.save(tmp_path / "a", tiny_models.make(slots=True))
  for file in sorted(folder.rglob("*")):
    if not file.is_file() or not file.stat().st_size:
      continue
    for at in (0, None):
      tiny_models.flip_a_bit(file, at)
      with pytest.raises(UserError, match=r"damaged checkpoint|no finished"):
        open_(folder)
      tiny_models.flip_a_bit(file, at)
  open_(folder)


def test_arrays_that_go_while_they_are_read_are_one_line(tmp_path):
  folder = tiny_models.save(tmp_path / "a", tiny_models.make())
  leaf = open_(folder).leaves["token_embedder/embedding"]
  for file in folder.rglob("d/*"):
    file.unlink()
  with pytest.raises(UserError, match=r"embedding cannot be read") as error:
    leaf.read()
  assert "\n" not in str(error.value)


def test_a_folder_without_parameters_is_refused(tmp_path):
  with pytest.raises(UserError, match="no finished checkpoint at"):
    open_(tmp_path)
  (tmp_path / "new" / "checkpoints").mkdir(parents=True)
  with pytest.raises(UserError, match="has no finished checkpoint yet"):
    open_(tmp_path / "new")
  saves = store.Store(tmp_path / "checkpoints")
  saves.save(1, {"step": np.int32(1)})
  saves.wait()
  with pytest.raises(UserError, match="00000001 holds no parameters; give"):
    open_(tmp_path)
