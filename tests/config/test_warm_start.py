"""RESTORE_OPTIMIZER and INITIAL_STEP = 'checkpoint': gin to a run's state."""

import functools
import shutil

import jax
import numpy as np
import pytest

from gkd import trees
from gkd.checkpoints import source
from gkd.checkpoints.native import run_folder
from gkd.checkpoints.store import Store
from gkd.config import warm_start
from gkd.models import t5
from gkd.training import run_description
from gkd.training import starting_point
from gkd.training import state as states
from gkd.training import t5x_adafactor_state
from gkd.types import UserError
from tests import tiny
from tests.checkpoints import tiny_models
from tests.cli import command_lines

RESTORE = "RESTORE_OPTIMIZER=True"
OF_CHECKPOINT = "INITIAL_STEP='checkpoint'"
FACTORS = "LEARNING_RATE_FACTORS='constant * linear_warmup * rsqrt_decay'"


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  return command_lines.write_caches(tmp_path_factory.mktemp("caches"))


@pytest.fixture
def prepare(tmp_path, caches):
  macros = {"MODEL_DIR": tmp_path / "run", "OPTIMIZER": "adafactor", **caches}
  return functools.partial(command_lines.prepare, "test/sft.gin", **macros)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
  """A run of Adafactor, begun at step 40 and saved after 5 of its own."""
  folder = tmp_path_factory.mktemp("before")
  config = command_lines.train_config("test/sft.gin", "MODEL_DIR=x")
  student = config.student.model
  params = jax.jit(student.init)(jax.random.key(3))
  rule = tiny.adafactor()
  state = states.create(params, rule.transformation())
  random = np.random.default_rng(0)
  slots = {
    name: random.random(slot.shape, np.float32)
    if name.startswith("v/")
    else slot
    for name, slot in tiny.adafactor_slots(state.opt_state).items()
  }
  opt_state = t5x_adafactor_state.restore(state.opt_state, params, slots)
  with Store(folder / "checkpoints") as store:
    store.save(5, state.replace(opt_state=opt_state, step=np.int32(5)))
  run_folder.write_description(folder, {"first_step": 40})
  return folder, slots


def assert_same(slots, expected):
  assert slots.keys() == expected.keys()
  for name, slot in expected.items():
    np.testing.assert_array_equal(slots[name], slot, err_msg=name)


def first_slots(run):
  _, state, *_ = starting_point.restored(run, Store(run.folder / "checkpoints"))
  return tiny.adafactor_slots(state.opt_state)


def test_a_run_of_ours_goes_on_at_its_absolute_step(prepare, before):
  folder, slots = before
  run = prepare(RESTORE, f"INITIAL_CHECKPOINT_PATH={folder}")
  assert run.optimizer.schedule.begins_at == 45
  assert run_description.describe(run)["first_step"] == 45
  assert "as T5X at step 45, with the slots of the checkpoint" in run.describe()
  assert "20 of this run, absolute steps 45 to 65, of batch" in run.describe()
  assert_same(first_slots(run), slots)


@pytest.mark.parametrize("to", ["t5x", "gkd"])
def test_a_run_of_ours_leaves_with_slots_and_step(
  prepare, before, tmp_path, to
):
  """And comes back: T5X's layout and a saved model hold the same."""
  folder, slots = before
  tiny_models.convert(folder, tmp_path / "out", to=to, slots=True)
  opened = source.open_checkpoint(tmp_path / "out")
  assert opened.step == 45
  assert_same({n: leaf.read() for n, leaf in opened.slots.items()}, slots)


def test_the_step_alone_leaves_the_slots_empty(prepare, before):
  path = f"INITIAL_CHECKPOINT_PATH={before[0]}"
  run = prepare(OF_CHECKPOINT, FACTORS, "WARMUP_STEPS=100", path)
  assert run.optimizer.schedule.begins_at == 45
  assert run.student_slots is None
  rate = run.optimizer.schedule(1)
  np.testing.assert_allclose(rate, 3e-3 * 0.46 / np.sqrt(100), rtol=1e-6)
  assert not any(x.any() for x in first_slots(run).values())


def test_without_these_options_nothing_is_taken(prepare, before):
  run = prepare(f"INITIAL_CHECKPOINT_PATH={before[0]}")
  assert run.optimizer.schedule.begins_at == 0
  assert run.student_slots is None
  assert run_description.describe(run)["first_step"] == 0


def test_a_run_that_goes_on_knows_its_first_step(prepare, before, tmp_path):
  first = shutil.copytree(before[0], tmp_path / "first")
  path = f"INITIAL_CHECKPOINT_PATH={first}"
  run = prepare(RESTORE, path)
  run.folder.mkdir()
  run_description.write(run, run_description.describe(run), resumed=False)
  (run.folder / "checkpoints" / "00000010").mkdir(parents=True)
  shutil.rmtree(first)
  assert prepare(RESTORE, path).optimizer.schedule.begins_at == 45
  run_folder.write_description(run.folder, {})
  with pytest.raises(UserError, match="does not say the step that the run"):
    prepare(RESTORE, path)


MISTAKES = """
RESTORE_OPTIMIZER=True
  RESTORE_OPTIMIZER is True but INITIAL_CHECKPOINT_PATH is em
INITIAL_STEP='checkpoint'
  INITIAL_STEP is 'checkpoint' but INITIAL_CHECK
RESTORE_OPTIMIZER=True; INITIAL_STEP=44; INITIAL_CHECKPOINT_PATH=BEFORE
  INITIAL_STEP is 44 but the slots .* are of step 45
RESTORE_OPTIMIZER=True; ADAFACTOR_STEP_OFFSET=45; INITIAL_CHECKPOINT_PATH=BEFORE
  RESTORE_OPTIMIZER has no effect with ADAFACTOR_STEP_OFFSET 45
RESTORE_OPTIMIZER=True; OPTIMIZER=adamw; INITIAL_CHECKPOINT_PATH=BEFORE
  RESTORE_OPTIMIZER is True but has no effect with adamw
"""


@pytest.mark.parametrize(
  ("values", "message"), command_lines.mistakes(MISTAKES)
)
def test_what_cannot_go_on_is_refused(prepare, before, values, message):
  with pytest.raises(UserError, match=message) as error:
    prepare(*(value.replace("BEFORE", str(before[0])) for value in values))
  assert "\n" not in str(error.value)


def test_slots_of_another_threshold_are_refused_at_the_first_start(
  prepare, before, tmp_path
):
  """Before anything is compiled or written."""
  path = f"INITIAL_CHECKPOINT_PATH={before[0]}"
  with pytest.raises(
    UserError, match=r"^INITIAL_CH.*: .* min_dim_size_to_factor of 25 or more"
  ):
    prepare(RESTORE, path, "optimizer.build.min_dim_size_to_factor=12")
  assert not (tmp_path / "run").exists()


def test_a_checkpoint_without_slots_or_step_is_refused(
  prepare, before, tmp_path
):
  run = prepare(f"INITIAL_CHECKPOINT_PATH={before[0]}")
  about = {"model": run_description.describe(run)["model"]}
  for name, step in (("stepless", {}), ("bare", {"step": 3})):
    tiny_models.save_params(tmp_path / name, run.initial_params(), about | step)
  path = f"INITIAL_CHECKPOINT_PATH={tmp_path}"
  with pytest.raises(UserError, match=r"bare has no slots .* \(it has none\)"):
    prepare(RESTORE, f"{path}/bare")
  assert (
    prepare(OF_CHECKPOINT, f"{path}/bare").optimizer.schedule.begins_at == 3
  )
  with pytest.raises(UserError, match="does not say its step; give a number"):
    prepare(OF_CHECKPOINT, f"{path}/stepless")


def test_a_scanned_checkpoint_with_slots_is_refused(prepare, golden, tmp_path):
  archive = golden / "t5x/t5_1_1_scan_tiny/legacy_checkpoint_0.tar.gz"
  shutil.unpack_archive(archive, tmp_path, filter="data")
  rule = tiny.adafactor(restore=True)
  path = str(tmp_path / "checkpoint_0")
  message = r"no slots to go on with \(.*stacked layers are factored different"
  with pytest.raises(UserError, match=message) as error:
    warm_start.from_checkpoint(rule, source.open_checkpoint(path), None, None)
  assert "\n" not in str(error.value)


def test_a_t5x_checkpoint_gives_slots_and_step(golden, tmp_path):
  archive = golden / "t5x/t5_1_1_tiny/legacy_checkpoint_10.tar.gz"
  shutil.unpack_archive(archive, tmp_path, filter="data")
  rule = tiny.adafactor(restore=True)
  path = str(tmp_path / "checkpoint_10")
  config, params = tiny_models.read(path)
  student = t5.encoder_decoder(config)
  rule, slots = warm_start.from_checkpoint(
    rule, source.open_checkpoint(path), student, None
  )
  assert rule.schedule.begins_at == 10
  arrays = slots()
  params = trees.flatten(params)
  assert len(arrays) == 4 * len(params)
  assert all(arrays[f"v/{n}"].shape == x.shape for n, x in params.items())
