"""What a run was made from is known again, and what is impossible refused."""

import dataclasses
import functools
import hashlib
import json
import re
import shutil
import signal

import jax
import numpy as np
import pytest

from gkd import locks
from gkd.checkpoints import checksums
from gkd.checkpoints import source
from gkd.checkpoints import zarr_arrays
from gkd.checkpoints.checkpoint import LICENSE_KEY
from gkd.checkpoints.native import native_checkpoint
from gkd.checkpoints.store import Store
from gkd.cli import main as command
from gkd.cli import train_command
from gkd.config.records import Folders
from gkd.models import registry
from gkd.training import preemption
from gkd.training import resume_check
from gkd.training import run_description
from gkd.types import UserError
from tests import tiny
from tests.checkpoints.tiny_models import save_params
from tests.cli import command_lines


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  return command_lines.write_caches(tmp_path_factory.mktemp("caches"))


@pytest.fixture(scope="module")
def model():
  """The teacher of test/distill.gin, which test/sft.gin trains."""
  config = command_lines.train_config("test/sft.gin", "MODEL_DIR=run")
  return config.student.model


@pytest.fixture
def prepare(tmp_path, caches, model):
  """Builds the run that a command would start, and what it says of itself."""
  params = jax.jit(model.init)(jax.random.key(0))
  save_params(tmp_path / "teacher", params, {})
  return functools.partial(
    command_lines.prepare,
    "test/distill.gin",
    MODEL_DIR=tmp_path / "run",
    TEACHER_CHECKPOINT_PATH=tmp_path / "teacher",
    **caches,
  )


@pytest.fixture
def begun(prepare, tmp_path):
  """The folder of that run as its first checkpoint finds it."""
  run = prepare()
  run_description.write(run, run_description.describe(run), resumed=False)
  (run.folder / "checkpoints" / "00000010").mkdir(parents=True)
  (run.folder / "metrics.jsonl").touch()


def changes(run):
  return resume_check.changes(run, run_description.describe(run))


@pytest.fixture(autouse=True)
def folder(tmp_path):
  (tmp_path / "run").mkdir()


def test_periods_length_and_evaluation_may_change(prepare, begun):
  values = {  # before and after
    "TRAIN_STEPS": (20, 40),
    "REPORT_PERIOD": (5, 7),
    "EVAL_PERIOD": (0, 2),
    "EVAL_LOG_STEPS": (0, 3),
    "EVAL_FIRST": (False, True),
    "CHECKPOINT_PERIOD": (10, 4),
    "SAMPLE_PERIOD": (10, 0),
    "KEEP": (3, 5),
    "KEEP_EVERY": (0, 8),
    "KEEP_BEST": (0, 1),
    "BEST_METRIC": ("", "eval/chain_addition_easy/accuracy"),
    "BEST_MODE": ("max", "min"),
    "GUARD": ("warn", "go_online"),
    "GUARD_Z": (None, 3.0),
  }
  after = {macro: value for macro, (_, value) in values.items()}
  evaluation = {"EVAL_EXAMPLES": 4, "EVAL_TEMPERATURES": (0.0, 1.0)}
  lines = changes(prepare(**after, **evaluation))
  expected = [f"{macro}: {a!r} → {b!r}" for macro, (a, b) in values.items()]
  expected.append("number of EVAL settings: 1 → 2")
  assert sorted(lines) == sorted(expected)


def test_the_same_command_goes_on_and_teacher_and_cache_may_move(
  prepare, begun, tmp_path, caches
):
  assert changes(prepare()) == []
  shutil.copytree(tmp_path / "teacher", tmp_path / "moved")
  shutil.copytree(caches["TRAIN_CACHE"], tmp_path / "cache")
  moved = {
    "TEACHER_CHECKPOINT_PATH": tmp_path / "moved",
    "TRAIN_CACHE": tmp_path / "cache",
  }
  assert changes(prepare(**moved)) == []


def test_a_second_process_is_refused_before_anything_is_read(
  prepare, tmp_path, monkeypatch
):
  prepare()
  monkeypatch.setattr(
    train_command, "prepare", lambda *_: pytest.fail("it read")
  )
  with (
    locks.hold(tmp_path / "run" / ".lock", "the run"),
    pytest.raises(UserError, match=r"MODEL_DIR .* is in use by process \d+ on"),
  ):
    train_command.train(Folders("", ""))


@pytest.fixture
def trained_on(tmp_path, model):
  """A teacher's run, which saves step after step."""

  def save(step):
    params = jax.jit(model.init)(jax.random.key(step))
    with Store(tmp_path / "training" / "checkpoints") as store:
      store.save(step, {"params": params})
    return params

  return save


def test_the_teacher_that_is_written_down_is_the_one_that_is_loaded(
  prepare, tmp_path, trained_on, monkeypatch
):
  first = trained_on(2)
  load = source.load_params

  def grows(*args, **options):
    trained_on(4)  # between the look and the load
    return load(*args, **options)

  monkeypatch.setattr(source, "load_params", grows)
  run = prepare(TEACHER_CHECKPOINT_PATH=tmp_path / "training")
  jax.tree.map(np.testing.assert_array_equal, run.teacher.params, first)
  marked = tmp_path / "training/checkpoints/00000002/sha256.json"
  written = hashlib.sha256(marked.read_bytes()).hexdigest()
  assert (
    run_description.describe(run)["contents"]["teacher_checkpoint"] == written
  )


def test_the_teacher_alone_reads_another_prompt(prepare, tmp_path):
  own = {"task": "solved", "lengths": {"inputs": 20, "targets": 32}}
  path = command_lines.write_cache(tmp_path / "own", "train", **own)
  lengths = {**command_lines.LENGTHS, "teacher_inputs": 20}
  run = prepare(TEACHER_CACHE=path, TASK_FEATURE_LENGTHS=lengths)
  assert (run.student.lm.privileged, run.teacher.lm.privileged) == (False, True)
  assert run.loader.batch(0).teacher_inputs.shape == (16, 20)
  assert "which the teacher reads as solved" in run.describe()
  with pytest.raises(UserError, match="no such model; give both"):
    prepare(TASK_FEATURE_LENGTHS=lengths)
  with pytest.raises(UserError, match="add 'teacher_inputs'"):
    prepare(TEACHER_CACHE=path)


def test_big_files_are_read_once_and_those_of_the_first_student_at_its_start(
  prepare, tmp_path, trained_on, monkeypatch
):
  trained_on(2)
  read = []
  hashed = checksums._hashes

  def counted(path, **options):
    read.append(path)
    return hashed(path, **options)

  monkeypatch.setattr(checksums, "_hashes", counted)
  teacher = f"TEACHER_CHECKPOINT_PATH={tmp_path / 'training'}"
  prepare(teacher)
  assert read == [tmp_path / "training/checkpoints/00000002"]
  save = shutil.copytree(tmp_path / "training", tmp_path / "student")
  (tmp_path / "run" / "checkpoints" / "00000010").mkdir(parents=True)
  run = prepare(teacher, f"INITIAL_CHECKPOINT_PATH={save}")
  assert len(read) == 1
  contents = run_description.describe(run)["contents"]
  assert contents["initial_checkpoint"] == contents["teacher_checkpoint"]


@pytest.mark.parametrize(
  ("binding", "message"),
  [
    ("REPORT_PERIOD=0", "REPORT_PERIOD is 0; give at least 1"),
    ("EVAL_PERIOD=-1", "EVAL_PERIOD is -1; give a number of steps, or 0"),
    ("EVAL_LOG_STEPS=-1", "EVAL_LOG_STEPS is -1"),
    (f"EVAL_LOG_STEPS={10**400}", "EVAL_LOG_STEPS is 1000*; give at most 1,0"),
    ("BATCH_SIZE=1000000", "BATCH_SIZE is 1000000; give 1 to 65,536"),
    (f"TRAIN_STEPS={10**23}", "TRAIN_STEPS is 1000*; give 1 to 2,147,483,647"),
    (f"SAMPLING_TOP_K={10**23}", "SAMPLING_TOP_K is 1000*; expected a whole"),
    (
      f"TASK_FEATURE_LENGTHS={{'inputs': 16, 'targets': {10**23}}}",
      "TASK_FEATURE_LENGTHS is .*; expected .* 1 to 1,048,576",
    ),
    ("CHECKPOINT_PERIOD=-1", "CHECKPOINT_PERIOD is -1"),
    ("SAMPLE_PERIOD=-1", "SAMPLE_PERIOD is -1"),
    ("KEEP=0", "KEEP is 0; give at least 1"),
    ("KEEP_BEST=1", "KEEP_BEST is 1 but BEST_METRIC is empty"),
    ("BEST_METRIC=x", "no effect without KEEP_BEST"),
    ("BEST_MODE=best", "BEST_MODE is 'best'; expected one of 'max', 'min'"),
  ],
)
def test_impossible_periods_and_keeps_are_refused(binding, message):
  paths = ["MODEL_DIR=run", "TEACHER_CHECKPOINT_PATH=teacher"]
  with pytest.raises(UserError, match=message):
    command_lines.train_config("test/distill.gin", *paths, binding)


@pytest.mark.parametrize("text", ["5", "0:3", "4:3", "7:21", "a:b", "-1:2"])
def test_steps_to_profile_are_those_of_the_run(text):
  assert train_command._profiled("7:20", 20) == range(7, 21)
  message = f"--profile={text}: expected FIRST:LAST, steps from 1 .*= 20"
  with pytest.raises(UserError, match=message):
    train_command._profiled(text, 20)


@pytest.mark.parametrize(
  ("error", "code", "message"),
  [
    (
      preemption.Interrupted(signal.SIGTERM, "after step 3 of 20"),
      143,
      "stopped by SIGTERM after step 3 of 20; the same command goes on",
    ),
    (
      preemption.Interrupted(signal.SIGINT, "after step 3 of 20"),
      130,
      "stopped by ctrl-C after step 3",
    ),
    (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
    (OSError(28, "No space left on device", "x/y"), 2, "x/y: No space left"),
    (OSError(30, "Read-only", "x/y"), 2, "x/y: Read-only file system; give"),
  ],
)
def test_every_end_has_its_exit_code_and_one_line(
  monkeypatch, capsys, error, code, message
):
  def end(args):
    raise error

  monkeypatch.setitem(command._COMMANDS, "report", end)
  assert command.main(["report", "anywhere"]) == code
  line = capsys.readouterr().err
  assert line.count("\n") == 1
  assert message in line


@pytest.fixture
def told(prepare, tmp_path):
  """Arguments of a run whose student is its teacher, with other prompts."""
  own = {"task": "solved", "lengths": {"inputs": 20, "targets": 32}}
  macros = {
    f"{prefix}TEACHER_CACHE": command_lines.write_cache(
      tmp_path / split, split, rows=rows, **own
    )
    for prefix, split, rows in (("", "train", 48), ("EVAL_", "validation", 8))
  }
  lengths = {**command_lines.LENGTHS, "teacher_inputs": 20}
  macros |= prepare.keywords | {"TASK_FEATURE_LENGTHS": lengths}
  del macros["TEACHER_CHECKPOINT_PATH"]

  def arguments(*files, **changes):
    own = command_lines.arguments(
      "train", file="test/distill.gin", **macros | changes
    )
    return [*own, *(f"--gin_file=methods/{name}.gin" for name in files)]

  return arguments


def test_a_student_taught_by_its_average_goes_on_to_the_bit(told, tmp_path):
  """And its checkpoints hold the student for whoever reads them."""
  changes = {"CHECKPOINT_PERIOD": 2, "TEACHER_DECAY": 0.5}
  straight, split = tmp_path / "straight", tmp_path / "split"
  for folder, steps in ((straight, 4), (split, 2), (split, 4)):
    changes |= {"MODEL_DIR": folder, "TRAIN_STEPS": steps}
    assert command.main(told("sdft", **changes)) == 0
  saved = [
    zarr_arrays.open_tree(run / "checkpoints/00000004/state")
    for run in (straight, split)
  ]
  arrays = [{n: x.read() for n, x in tree.items()} for tree in saved]
  assert any(name.startswith("average/") for name in arrays[0])
  jax.tree.map(np.testing.assert_array_equal, *arrays)
  opened = source.open_checkpoint(split)
  assert opened.leaves.keys() == {
    name.removeprefix("params/") for name in arrays[0] if "params/" in name[:7]
  }


def test_a_live_teacher_is_told_what_the_student_is_not(told, tmp_path):
  assert command.main(told("live_teacher", TRAIN_STEPS=2)) == 0
  last = tiny.records(tmp_path / "run")[-1]
  assert last["train/forward_kl"] > 0
  described = json.loads((tmp_path / "run/run.json").read_text())
  assert "student itself" in described["card"]["teacher"]
  assert described["roles"]["teacher"]["content_sha256"] == ""


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"TEACHER_CHECKPOINT_PATH": "x"},
      "PATH 'x' and TEACHER_DECAY 0.99 are",
    ),
    ({"TEACHER_DTYPE": "bfloat16"}, "TEACHER_DTYPE has no effect.*of the stud"),
    ({"TEACHER_DECAY": 1.0}, "TEACHER_DECAY is 1.0; expected a number from 0"),
  ],
)
def test_settings_of_another_teacher_are_refused(
  changes, message, told, capsys
):
  line = command_lines.error_of(told("sdft", **changes), capsys)
  assert re.search(message, line), line


@pytest.fixture
def taught_by_two(prepare, tmp_path, model, caches):
  """Arguments of a run on two tasks, each with a teacher of its own."""
  for name, width, notes in (
    ("narrow", 24, {}),
    ("wide", 32, {LICENSE_KEY: "mit"}),
  ):
    config = dataclasses.replace(model.config, emb_dim=width)
    params = jax.jit(registry.build(config).init)(jax.random.key(width))
    described = native_checkpoint.description(config)
    save_params(tmp_path / name, params, described | notes)
  tasks = {
    name: str(command_lines.write_cache(tmp_path / name, "train", task=name))
    for name in ("easy", "hard")
  }
  macros = prepare.keywords | {
    "TRAIN_CACHE": {tasks["easy"]: 3, tasks["hard"]: 1},
    "TEACHERS": {
      "easy": str(tmp_path / "narrow"),
      "hard": str(tmp_path / "wide"),
    },
    "TEACHER_MODEL": None,
    "TRAIN_LIMIT": None,
  }
  del macros["TEACHER_CHECKPOINT_PATH"]

  def arguments(**changes):
    own = command_lines.arguments(
      "train", file="test/distill.gin", **macros | changes
    )
    return [*own, "--gin_file=methods/teachers.gin"]

  return arguments


def test_each_task_has_its_teacher_and_the_run_goes_on_to_the_bit(
  taught_by_two, tmp_path
):
  straight, split = tmp_path / "straight", tmp_path / "split"
  for folder, steps in ((straight, 4), (split, 2), (split, 4)):
    changes = {"MODEL_DIR": folder, "TRAIN_STEPS": steps, "REPORT_PERIOD": 1}
    arguments = taught_by_two(CHECKPOINT_PERIOD=2, **changes)
    assert command.main(arguments) == 0
  arrays = [
    {
      name: leaf.read()
      for name, leaf in zarr_arrays.open_tree(
        run / "checkpoints/00000004/state"
      ).items()
    }
    for run in (straight, split)
  ]
  jax.tree.map(np.testing.assert_array_equal, *arrays)
  lines = [line for line in tiny.records(split) if "train/loss" in line]
  shares = [line["train/token_share/hard"] for line in lines]
  assert all(0.1 < share < 0.4 for share in shares)
  assert lines[-1]["train/token_share/easy"] == pytest.approx(1 - shares[-1])
  described = json.loads((split / "run.json").read_text())
  assert {"easy", "hard"} <= described["roles"].keys()
  card = described["card"]
  assert "hard: " in card["teacher"]
  assert card["teacher_license"] == "easy: unknown, hard: mit"
  assert card["teacher_parameters"] == "easy: 14,984, hard: 19,936"


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"TEACHER_CHECKPOINT_PATH": "x"}, "PATH 'x' and TEACHERS .* are all giv"),
    ({"TEACHER_DECAY": 0.9}, "TEACHER_DECAY 0.9 and TEACHERS .* are all given"),
    (
      {"TEACHERS": {"easy": "/nowhere", "hard": "x"}},
      "easy.]: there is no folder",
    ),
    ({"TEACHERS": {"Easy": "x"}}, "TEACHERS has 'Easy'; expected a name"),
    (
      {"OFF_POLICY_SOURCE": "teacher"},
      "they only score; set OFF_POLICY_SOURCE",
    ),
  ],
)
def test_teachers_that_do_not_go_together_are_refused(
  changes, message, taught_by_two, capsys
):
  changes = {"STUDENT_DATA_FRACTION": 0.5} | changes
  line = command_lines.error_of(taught_by_two(**changes), capsys)
  assert re.search(message, line), line
