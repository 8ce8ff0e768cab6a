"""Any source is opened, and loaded onto a mesh part by part."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import api
from gkd import partitioning
from gkd import trees
from gkd.checkpoints import source
from gkd.checkpoints.native import native_checkpoint
from gkd.models import layer_stack
from gkd.models import registry
from gkd.models import t5
from gkd.models.kept_layers import EveryKth
from gkd.models.layer_stack import Execution
from gkd.types import UserError
from tests import second_family
from tests import tiny
from tests.checkpoints import tiny_models
from tests.checkpoints.native.test_native_checkpoint import make_run

FORMATS = ("gkd", "t5x", "hf")
SIZES = {"num_heads": 4, "num_encoder_layers": 1, "num_decoder_layers": 3}


@pytest.fixture(scope="module")
def mesh():
  return partitioning.make_mesh(model=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """The same model as a saved model, a T5X checkpoint and a folder of HF."""
  root = tmp_path_factory.mktemp("formats")
  for format in FORMATS:
    tiny_models.save(root / format, tiny_models.make(**SIZES), format)
  return root


def counted(checkpoint):
  """The same checkpoint, and the names of its arrays in the order of reads."""
  reads = []

  def count(name, leaf):
    return leaf.map(lambda array: (reads.append(name), array)[1])

  leaves = {n: count(n, leaf) for n, leaf in checkpoint.leaves.items()}
  return dataclasses.replace(checkpoint, leaves=leaves), reads


@pytest.mark.parametrize("format", FORMATS)
def test_each_device_gets_its_part_and_the_content_is_known(
  folders, mesh, format, monkeypatch
):
  made = tiny_models.make(**SIZES)
  checkpoint = source.open_checkpoint(folders / format)
  assert checkpoint.format == format
  checkpoint, reads = counted(checkpoint)
  model = registry.build(checkpoint.config)
  params = source.load_params(checkpoint, model, mesh)
  layout = partitioning.shardings(model.axes(params), mesh)
  loaded = trees.flatten(params)
  for name, sharding in trees.flatten(layout).items():
    wanted = made.leaves[name].read()
    assert loaded[name].sharding == sharding
    np.testing.assert_array_equal(np.asarray(loaded[name]), wanted)
    for shard in loaded[name].addressable_shards:
      np.testing.assert_array_equal(shard.data, wanted[shard.index])
  kernel = loaded["decoder/layers_2/mlp/wo/kernel"]
  assert {s.data.shape for s in kernel.addressable_shards} == {(6, 16)}
  # The same identity in all formats, and nothing read a second time for it.
  assert checkpoint.content_sha256 == made.content_sha256
  assert reads == sorted(checkpoint.leaves)
  monkeypatch.setattr(source, "hash_array", None)
  source.load_params(checkpoint, model, mesh)  # nor is it hashed again


def test_layers_are_loaded_into_stacks(folders, mesh):
  checkpoint = source.open_checkpoint(folders / "hf")
  model = registry.build(checkpoint.config, execution=Execution(scan=True))
  params = source.load_params(checkpoint, model, mesh, dtype="bfloat16")
  layout = partitioning.shardings(model.axes(params), mesh)
  plain = registry.build(checkpoint.config)
  each = source.load_params(checkpoint, plain, mesh, dtype="bfloat16")
  tiny.assert_identical(params, layer_stack.stacked(each))
  assert jax.tree.map(lambda x: x.sharding, params) == layout
  kernel = params["decoder"]["layers_*"]["mlp"]["wo"]["kernel"]
  assert {s.data.shape for s in kernel.addressable_shards} == {(3, 6, 16)}


def test_the_type_asked_for_is_that_of_the_loaded_arrays(folders, mesh):
  checkpoint = source.open_checkpoint(folders / "hf")
  model = registry.build(checkpoint.config)
  params = source.load_params(checkpoint, model, mesh, dtype="bfloat16")
  for name, array in trees.flatten(params).items():
    wanted = jnp.asarray(checkpoint.leaves[name].read()).astype(jnp.bfloat16)
    assert array.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(array), np.asarray(wanted))
  # It computes what the float32 parameters do, but for 8 bits of mantissa.
  tokens = np.arange(3, 8)[None]
  logits = jax.jit(model.logits)
  exact = source.load_params(checkpoint, model, mesh)
  wanted = logits(exact, tokens, tokens)
  error = np.abs(logits(params, tokens, tokens) - wanted).mean()
  assert 0 < error < 0.05 * np.abs(wanted).max()
  # A model that was saved in bfloat16 is loaded in the model's own type.
  tiny_models.convert(
    folders / "hf", folders / "half", to="gkd", dtype="bfloat16"
  )
  half = source.open_checkpoint(folders / "half")
  whole = source.load_params(half, model, mesh)
  assert {x.dtype for x in jax.tree.leaves(whole)} == {jnp.dtype("float32")}


def test_arrays_of_layers_that_are_left_out_are_never_read(folders, mesh):
  checkpoint = source.open_checkpoint(folders / "gkd")
  watched, reads = counted(checkpoint)
  smaller = source.pick_layers(watched, EveryKth((1, 2)))
  assert smaller.config.num_decoder_layers == 2
  params = source.load_params(smaller, registry.build(smaller.config), mesh)
  loaded = trees.flatten(params)
  taken = "decoder/layers_2/self_attention/query/kernel"
  np.testing.assert_array_equal(
    loaded[taken.replace("layers_2", "layers_1")],
    checkpoint.leaves[taken].read(),
  )
  assert taken in reads
  assert not any(name.startswith("decoder/layers_1/") for name in reads)
  # Other layers are another content.
  other = source.pick_layers(checkpoint, EveryKth((1, 3)))
  hashes = {c.content_sha256 for c in (checkpoint, smaller, other)}
  assert len(hashes) == 3


def test_another_model_is_refused_with_its_differences(folders, mesh):
  checkpoint = source.open_checkpoint(folders / "gkd")
  config = dataclasses.replace(checkpoint.config, mlp_dim=28)
  with pytest.raises(UserError, match=r"does not fit the model: .*mlp.* is"):
    source.load_params(checkpoint, t5.encoder_decoder(config), mesh)
  odd = partitioning.make_mesh(model=3, devices=jax.devices()[:3])
  model = registry.build(checkpoint.config)
  with pytest.raises(UserError, match="does not divide over 3 devices"):
    source.load_params(checkpoint, model, odd)


def test_whole_numbers_are_not_truncated_to_fit(tmp_path, mesh):
  config = second_family.BigramConfig(rows=12)
  save(tmp_path, config)
  model = second_family.build(config)

  def init(key):
    return model.init(key) | {"head": jnp.zeros((8, 12), jnp.int32)}

  with pytest.raises(
    UserError, match=r"head is \(8, 12\) float instead of \(8, 12\) int32; u"
  ):
    source.load_params(
      source.open_checkpoint(tmp_path),
      dataclasses.replace(model, init=init),
      mesh,
    )


def test_a_step_chooses_among_several(tmp_path):
  for step in (5, 12):
    (tmp_path / f"checkpoint_{step}").mkdir()
  assert source.at_step(tmp_path, 5) == tmp_path / "checkpoint_5"
  assert source.at_step(tmp_path, None) == tmp_path
  with pytest.raises(UserError, match=r"no checkpoint of step 7; it has 5, 12"):
    source.at_step(tmp_path, 7)
  one = tmp_path / "checkpoint_5"
  assert source.at_step(one, 7) == one  # compared once it is open
  make_run(tmp_path / "run")
  assert source.open_checkpoint(tmp_path / "run", step=2).step == 2


def save(folder, config):
  """A model of the second family; returns its parameters."""
  params = second_family.build(config).init(jax.random.key(0))
  about = native_checkpoint.description(config)
  tiny_models.save_params(folder, params, about)
  return params


def test_a_second_family_is_saved_opened_and_loaded(tmp_path, mesh):
  """Until it is registered its config is a dict."""
  config = second_family.BigramConfig(rows=12)
  params = save(tmp_path / "model", config)
  checkpoint = source.open_checkpoint(tmp_path / "model")
  assert checkpoint.family == "tests.second_family.BigramConfig"
  assert checkpoint.config == {"rows": 12, "width": 8, "scales": [1.0, 0.5]}
  model = second_family.build(config)
  loaded = source.load_params(checkpoint, model, mesh)
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  shards = loaded["prompt"].addressable_shards
  assert {shard.data.shape for shard in shards} == {(3, 8)}
  with pytest.raises(UserError, match=r"emb_dim cannot be set: .* not T5"):
    source.open_checkpoint(tmp_path / "model", emb_dim=3)
  with pytest.raises(UserError, match="EVERY_KTH_LAYER is for T5, T5Gem"):
    source.pick_layers(checkpoint, EveryKth(2))
  message = (
    r"/model, saved as 'tests\.second_family\.BigramConfig', is of a family"
    r" that gkd does not know; bind"
  )
  with pytest.raises(UserError, match=message):
    api.load(tmp_path / "model")


def test_a_registered_family_opens_by_itself(tmp_path, monkeypatch):
  monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
  config = second_family.BigramConfig(rows=12, scales=(2.0, 3.0))
  save(tmp_path / "before", config)
  second_family.register()
  save(tmp_path / "after", config)
  for name in ("before", "after"):
    checkpoint = source.open_checkpoint(tmp_path / name)
    assert (checkpoint.family, checkpoint.config) == ("bigram", config)
  model = registry.build(checkpoint.config)
  assert model.config == config
  # Else programs would be compiled again for it.
  assert registry.build(dataclasses.replace(config)) is model
  with pytest.raises(UserError, match="'bigram' is registered already"):
    registry.register("bigram", t5.T5Config, t5.encoder_decoder)
  with pytest.raises(UserError, match=r"does not fit BigramConfig .*depth"):
    registry.config_of("bigram", {"rows": 12, "depth": 3})
  with pytest.raises(UserError, match="a dict; expected an instance of a froz"):
    registry.family_of({})


@dataclasses.dataclass(frozen=True)
class Nested:
  """A config with others in it, and with what JSON may not keep."""

  table: second_family.BigramConfig
  layers: tuple[second_family.BigramConfig, ...] = ()
  last: second_family.BigramConfig | None = None
  other: Any = 0


BIGRAM = second_family.BigramConfig(rows=3)


@pytest.mark.parametrize("last", [None, BIGRAM])
def test_a_config_within_a_config_comes_back(monkeypatch, last):
  monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
  registry.register("nested", Nested, second_family.build)
  config = Nested(BIGRAM, (BIGRAM, BIGRAM), last, ("a", 1))
  saved = json.loads(json.dumps(dataclasses.asdict(config)))
  assert registry.config_of("nested", saved) == config
  assert registry.family_of(config) == "nested"
  with pytest.raises(UserError, match="is another one when it is read from JS"):
    registry.family_of(dataclasses.replace(config, other=BIGRAM))


@pytest.mark.parametrize("other", [jnp.float32, ["unhashable"]])
def test_a_config_that_cannot_be_kept_is_refused_in_a_line(other):
  with pytest.raises(UserError, match=r"be saved or compared \(.*; expected"):
    registry.family_of(Nested(BIGRAM, other=other))
