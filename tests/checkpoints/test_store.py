"""Checkpoints come back bit for bit, or not at all."""

from concurrent import futures
import errno
import hashlib
import os
import shutil
import threading
import time

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gkd.checkpoints import store as stores
from gkd.checkpoints.retention import PreservationPolicy
from gkd.types import UserError
from tests.checkpoints import tiny_models


@flax.struct.dataclass
class State:
  """Same shape of tree as the trainer's."""

  params: dict
  opt_state: tuple
  step: jax.Array


def make_state(seed: int = 0) -> State:
  rng = np.random.default_rng(seed)
  params = {
    "encoder": {"kernel": jnp.asarray(rng.normal(size=(8, 4)), jnp.float32)},
    "half": jnp.asarray(rng.normal(size=(4, 4)), jnp.bfloat16),
    "ids": jnp.asarray(rng.integers(0, 1 << 30, 5), jnp.int32),
  }
  opt_state = optax.adamw(1e-3).init(params)
  return State(params, opt_state, jnp.asarray(seed, jnp.int32))


def assert_same(left, right):
  assert jax.tree.structure(left) == jax.tree.structure(right)
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    assert a.dtype == b.dtype
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def largest_file(folder):
  return max(folder.rglob("d/*"), key=lambda file: file.stat().st_size)


def flip_a_bit(folder):
  tiny_models.flip_a_bit(largest_file(folder))


@pytest.fixture
def saved(tmp_path):
  """A folder with the checkpoints 1 and 2."""
  with stores.Store(tmp_path) as store:
    for step in (1, 2):
      store.save(step, make_state(step))
  return tmp_path


def test_state_comes_back_bit_for_bit(tmp_path):
  state = make_state(3)
  store = stores.Store(tmp_path / "c")
  assert store.latest_step() is None
  store.save(3, state)
  store.wait()
  again = stores.Store(tmp_path / "c")
  assert again.latest_step() == 3
  assert_same(again.restore(3, make_state(1)), state)
  assert_same(again.restore(3, jax.eval_shape(make_state)), state)
  store.save(4, {"x": np.float32(2.5), "n": 3})
  numbers = store.restore(4, {"x": np.float32(0), "n": 0})
  assert (float(numbers["x"]), int(numbers["n"])) == (2.5, 3)


def test_save_has_its_own_copy_before_the_caller_donates(tmp_path):
  state = make_state(1)
  expected = jax.tree.map(np.array, state)
  store = stores.Store(tmp_path, PreservationPolicy(latest=1))
  overwrite = jax.jit(
    lambda s: jax.tree.map(lambda x: x * 0 + 7, s), donate_argnums=0
  )
  store.save(1, state)
  jax.block_until_ready(overwrite(state))
  assert_same(store.restore(1, make_state()), expected)


def truncate(folder):
  file = largest_file(folder)
  file.write_bytes(file.read_bytes()[:-1])


def remove_a_file(folder):
  largest_file(folder).unlink()


@pytest.mark.parametrize("harm", [flip_a_bit, truncate, remove_a_file])
def test_damage_is_noticed_and_the_one_before_is_taken(saved, harm, caplog):
  harm(saved / "00000002")
  again = stores.Store(saved, PreservationPolicy(latest=1))
  with pytest.raises(
    UserError, match=r"damaged checkpoint .*00000002: .*delete"
  ):
    again.restore(2, make_state())
  assert again.latest_step() == 1
  assert "damaged checkpoint" in caplog.text
  # The damaged one does not outlive the next good one.
  again.save(2, make_state(5))
  assert_same(again.restore(2, make_state()), make_state(5))
  again.save(3, make_state(3))
  assert again.steps() == [3]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOENT])
def test_a_file_that_cannot_be_read_is_damage(saved, monkeypatch, caplog, code):
  read = hashlib.file_digest

  def fail(file, name):
    if "00000002" in file.name:
      raise OSError(code, os.strerror(code), file.name)
    return read(file, name)

  monkeypatch.setattr(hashlib, "file_digest", fail)
  again = stores.Store(saved)
  assert again.latest_step() == 1
  assert f"cannot be read ({os.strerror(code)}); delete" in caplog.text
  with pytest.raises(UserError, match=r"damaged checkpoint .* cannot be read"):
    again.restore(2, make_state())


def test_a_folder_that_cannot_be_read_is_damage(saved, monkeypatch, caplog):
  stat = os.stat

  def refuse(path, **options):
    if "00000002/" in str(path):
      raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return stat(path, **options)

  monkeypatch.setattr(os, "stat", refuse)
  assert stores.Store(saved).latest_step() == 1
  assert "cannot be read (Permission denied); delete this" in caplog.text


def test_a_kill_while_one_is_removed_leaves_nothing(saved, monkeypatch):
  """Also where no save follows, as after the last step."""
  remove, calls = shutil.rmtree, []

  def kill(path, **options):
    if not calls:
      calls.append(path)
      raise KeyboardInterrupt
    remove(path, **options)

  monkeypatch.setattr(shutil, "rmtree", kill)
  store = stores.Store(saved, PreservationPolicy(latest=1))
  with pytest.raises(KeyboardInterrupt):
    store.prune(2)
  assert (store.steps(), len(list(saved.iterdir()))) == ([2], 2)
  store.prune(2)
  assert [f.name for f in saved.iterdir()] == ["00000002"]


def test_what_cannot_be_removed_is_said(saved, monkeypatch, caplog):
  def fail(path, target):
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))

  monkeypatch.setattr(stores.Path, "rename", fail)
  store = stores.Store(saved, PreservationPolicy(latest=1))
  store.prune(2)
  assert f"cannot remove {saved}/00000001 (Device or res" in caplog.text
  assert store.steps() == [1, 2]
  with pytest.raises(UserError, match=r"00000002 is in the place of the check"):
    store.save(2, make_state(2))


def test_what_is_not_ours_stays(saved, tmp_path_factory):
  """A name that this program does not give, and what a link leads to."""
  disk = tmp_path_factory.mktemp("disk") / "00000001"
  (saved / "00000001").rename(disk)
  (saved / "00000001").symlink_to(disk)
  (saved / "7").mkdir()
  store = stores.Store(saved, PreservationPolicy(latest=1))
  assert store.steps() == [1, 2]
  store.save(3, make_state(3))
  assert store.steps() == [3]
  assert (disk / "notes.json").is_file()
  assert sorted(f.name for f in saved.iterdir()) == ["00000003", "7"]


def test_damaged_newer_ones_do_not_push_out_good_ones(saved):
  (saved / "00000002").rename(saved / "00000005")
  flip_a_bit(saved / "00000005")
  again = stores.Store(saved, PreservationPolicy(latest=1))
  assert again.latest_step() == 1
  again.save(2, make_state(2))
  assert again.steps() == [2]
  assert again.latest_step() == 2


def test_all_damaged_is_an_error_and_no_silent_start(saved):
  for step in (1, 2):
    flip_a_bit(saved / f"{step:08d}")
  with pytest.raises(UserError, match=r"all checkpoints in .* are damaged"):
    stores.Store(saved).latest_step()
  # Nor does a copy that left the hashes behind start again from step 0.
  for file in saved.rglob("sha256.json"):
    file.unlink()
  with pytest.raises(UserError, match=r"are damaged \(\[1, 2\]\); restore"):
    stores.Store(saved).latest_step()


def test_notes_come_back_and_are_hashed(tmp_path):
  store = stores.Store(tmp_path)
  metadata = {"means": {"loss": [0.1 + 0.2, 3.0]}, "pending_eval": True}
  store.save(1, make_state(1), metadata)
  assert store.metadata(1) == metadata | {"temporary": False}
  file = tmp_path / "00000001" / "notes.json"
  file.write_text(file.read_text().replace("true", "false"))
  with pytest.raises(UserError, match=r"notes\.json differs"):
    stores.Store(tmp_path).metadata(1)


def test_a_long_save_says_that_it_is_under_way(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(stores, "_SILENT_SECONDS", 0.01)
  write = stores.checksums.write_hashes

  def slowly(path):
    time.sleep(0.1)
    write(path)

  monkeypatch.setattr(stores.checksums, "write_hashes", slowly)
  caplog.set_level("INFO", "gkd")
  with stores.Store(tmp_path) as store:
    store.save(7, make_state(1))
  assert "still saving the checkpoint of step 7, 0 s so far" in caplog.text


def test_kills_in_one_save_after_the_other_leave_no_error(
  tmp_path, monkeypatch
):
  """Between the commit and the hashes, at steps that are not the same."""

  def kill(path):
    raise RuntimeError("killed")

  monkeypatch.setattr(stores.checksums, "write_hashes", kill)
  for step in (2, 3, 1):
    store = stores.Store(tmp_path)
    assert store.latest_step() is None
    store.save(step, make_state(step))
    with pytest.raises(RuntimeError, match="killed"):
      store.wait()
  assert [f.name for f in tmp_path.iterdir()] == ["00000001"]
  # An older version left several, at least all but one before the metadata.
  (tmp_path / "00000007").mkdir()
  (tmp_path / "00000009").mkdir()
  assert stores.Store(tmp_path).latest_step() is None


def test_a_failed_save_can_be_asked_for(tmp_path, monkeypatch):
  ended = threading.Event()

  def fail(path):
    ended.wait(60)
    raise RuntimeError("no more space")

  monkeypatch.setattr(stores.checksums, "write_hashes", fail)
  store = stores.Store(tmp_path)
  store.check()
  store.save(1, make_state(1))
  store.check()  # under way: nothing to say, nothing to wait for
  ended.set()
  futures.wait([store._pending], 60)
  with pytest.raises(RuntimeError, match="no more space"):
    store.check()


def test_unfinished_save_is_no_checkpoint(saved, caplog):
  # What a kill leaves: committed by orbax but not yet marked, and a rest.
  (saved / "00000002" / "sha256.json").unlink()
  rest = saved / "00000003.orbax-checkpoint-tmp"
  shutil.copytree(saved / "00000001", rest)
  again = stores.Store(saved)
  assert again.latest_step() == 1
  assert "00000002: a save was interrupted there, or its sha256" in caplog.text
  again.save(2, make_state(7))
  assert_same(again.restore(2, make_state()), make_state(7))
  assert sorted(f.name for f in saved.iterdir()) == ["00000001", "00000002"]


def test_restores_onto_another_number_of_devices(tmp_path):
  assert len(jax.devices()) >= 4
  mesh = jax.make_mesh(
    (4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  spec = jax.sharding.PartitionSpec
  split = jax.sharding.NamedSharding(mesh, spec("data"))
  values = np.arange(32, dtype=np.float32).reshape(8, 4)
  store = stores.Store(tmp_path, PreservationPolicy(latest=2))
  store.save(1, {"x": jax.device_put(values, split)})
  one = jax.sharding.SingleDeviceSharding(jax.devices()[1])
  for sharding in (one, jax.sharding.NamedSharding(mesh, spec(None, "data"))):
    like = {"x": jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=sharding)}
    restored = store.restore(1, like)["x"]
    assert restored.sharding == sharding
    np.testing.assert_array_equal(np.asarray(restored), values)


def test_unlike_leaves_are_listed(tmp_path):
  store = stores.Store(tmp_path, PreservationPolicy(latest=2))
  store.save(1, {"a": jnp.zeros((2, 3)), "b": jnp.zeros(4), "c": jnp.zeros(1)})
  like = {"a": jnp.zeros((3, 2)), "b": jnp.zeros(4, jnp.bfloat16)}
  with pytest.raises(UserError) as error:
    store.restore(1, like)
  message = str(error.value)
  assert "a is (2, 3) float32 instead of (3, 2) float32" in message
  assert "b is (4,) float32 instead of (4,) bfloat16" in message
  assert "1 left over: c (1,) float32" in message


def test_impossible_requests_say_what_to_do(tmp_path):
  store = stores.Store(tmp_path / "c")
  with pytest.raises(UserError, match="no finished checkpoint at"):
    store.restore(5, {})
  (tmp_path / "c").write_text("a file where the folder should be")
  with pytest.raises(UserError, match="cannot write checkpoints"):
    store.save(1, make_state())
