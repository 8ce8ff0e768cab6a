"""The loop ends in the same state however it got there, and needs no TF."""

import dataclasses
import json
import logging

import jax
import numpy as np
import pytest

from gkd import api
from gkd import partitioning
from gkd.data.loader import Loader
from gkd.evaluation.metric_infos import metric_infos
from gkd.losses.objective import CrossEntropy
from gkd.metric_fields import SUFFIXES
from gkd.progress import short
from gkd.text import tokenizer_folder
from gkd.training import loop
from gkd.training import skipped_updates
from gkd.training.optimizer import starting_at
from gkd.training.rollout import Rollout
from gkd.types import Model
from gkd.types import UserError
from tests import child
from tests import tiny
from tests.tiny import LENGTHS
from tests.tiny import STEPS
from tests.tiny import STUDENT
from tests.tiny import TEACHER
from tests.tiny import VOCABULARY
from tests.tiny import assert_identical
from tests.tiny import lines
from tests.tiny import make_evaluation
from tests.tiny import make_run
from tests.tiny import parameters
from tests.tiny import records


class Stop(Exception):
  """A run that is killed."""


def stop_at(stopped):
  def listener(step, values):
    if step == stopped:
      raise Stop

  return listener


def test_the_first_start_keeps_the_vocabulary_and_asks_the_teacher(
  tmp_path, caches, caplog
):
  """Once: a run that goes on knows its teacher."""
  caplog.set_level(logging.INFO, logger="gkd")
  with pytest.raises(Stop):
    loop.train(make_run(tmp_path, caches), listener=stop_at(3))
  assert tokenizer_folder.load(tmp_path).spec() == VOCABULARY.spec()
  asked = [m for m in caplog.messages if "nats a token on the ref" in m]
  assert len(asked) == 1
  with pytest.raises(Stop):
    loop.train(make_run(tmp_path, caches), listener=stop_at(3))
  assert "resuming after step 2" in caplog.text
  assert caplog.text.count("nats a token on the ref") == 1


def test_a_complete_run_is_left_alone(caches, undisturbed):
  state, folder = undisturbed

  def files():
    found = [x for x in sorted(folder.rglob("*")) if x.name != ".lock"]
    return {x: x.stat().st_mtime_ns for x in found if x != folder}

  before = files()
  again = make_run(folder, caches, config_text="# another\n")
  assert_identical(loop.train(again), state)
  shorter = make_run(
    folder, caches, train_steps=STEPS - 2, config_text="# another\n"
  )
  with pytest.raises(UserError, match=r"TRAIN_STEPS is 4 but .* 6 steps"):
    loop.train(shorter)
  assert files() == before


def test_a_trained_model_is_known_when_it_is_loaded(caches, undisturbed):
  """A run with it as the teacher goes on with the one of the folder."""
  _, folder = undisturbed
  trained = api.train(make_run(folder, caches))
  loaded = api.load(folder)
  assert trained.content_sha256 == loaded.content_sha256 != ""


def test_slots_are_those_of_the_first_start(tmp_path, caches):
  """A run that is resumed has its own, and never asks for the first ones."""
  params = parameters(STUDENT, 0)
  rule = starting_at(tiny.adafactor(total_steps=3, restore=True), 1000)
  state = rule.transformation().init(params)
  slots = tiny.adafactor_slots(state)
  slots |= {n: x + 1e-8 for n, x in slots.items() if n.startswith("v/")}
  asked = []

  def make(name, **changes):
    fields = {
      "teacher": None,
      "objective": CrossEntropy(),
      "rollout": None,
      "optimizer": rule,
      "student_slots": lambda: asked.append(name) or slots,
      "mesh": partitioning.make_mesh(devices=jax.devices()[:1]),
      "train_steps": 3,
    }
    return make_run(tmp_path / name, caches, **fields | changes)

  straight = loop.train(make("straight"))
  with pytest.raises(Stop):
    loop.train(make("stopped"), listener=stop_at(3))
  assert_identical(loop.train(make("stopped")), straight)
  assert asked == ["straight", "stopped"]
  # β₂ is 0.996 there: most of what was given is in what came out.
  found = tiny.adafactor_slots(straight.opt_state)
  scale = found["v/decoder/decoder_norm/scale"]
  assert np.all(scale > 0.95e-8)
  with pytest.raises(UserError, match=r"RESTORE_OPTIMIZER is True .* no slots"):
    make("none", student_slots=None)


def test_evaluation_leaves_training_as_it_is(
  tmp_path, caches, undisturbed, caplog
):
  """And says how the student does."""
  caplog.set_level(logging.INFO, logger="gkd")
  evaluation = make_evaluation(caches["validation"])
  frozen = {
    role: Model(TEACHER, parameters(TEACHER, seed))
    for role, seed in (("teacher", 1), ("judge", 2))
  }
  run = make_run(
    tmp_path,
    caches,
    roles={"student": Model(STUDENT, parameters(STUDENT, 0)), **frozen},
    evaluations=(evaluation,),
    eval=2,
    eval_first=True,
    sample=3,
  )
  assert_identical(loop.train(run), undisturbed[0])
  evaluated = [r for r in records(tmp_path) if "eval/sums/accuracy" in r]
  assert [record["step"] for record in evaluated] == [0, 2, 4, 6]
  assert {"eval/sums/forward_kl", "eval/sums/reverse_kl"} <= evaluated[0].keys()
  of_teacher = {r["eval/sums/teacher_forward_kl_to_judge"] for r in evaluated}
  assert len(of_teacher) == 1
  assert len({r["eval/sums/forward_kl_to_judge"] for r in evaluated}) > 1
  said = [m for m in caplog.messages if m.startswith("step ")]
  assert len(said) == 4
  head, *shown = said[-1].splitlines()
  accuracy, kl = (
    short(evaluated[3][f"eval/sums/{x}"]) for x in ("accuracy", "forward_kl")
  )
  start = f"step 6, sums validation at temperature 1: accuracy {accuracy} %, "
  assert head.startswith(start)
  assert "_ci_" not in head
  assert f", forward_kl {kl} nats per sequence, " in head
  (file,) = (tmp_path / "predictions").glob("*-00000006.jsonl")
  written = map(json.loads, file.read_text().splitlines())
  for line, record in zip(shown, written, strict=False):
    assert line.startswith(
      f"  {record['prompt']!r} → {record['text']!r}, of log-"
    )
  assert len(shown) == 3


@pytest.mark.parametrize("off_policy_source", ["dataset", "teacher"])
def test_every_promised_number_and_file_is_written(
  tmp_path, caches, off_policy_source
):
  """Also where evaluation and checkpoint are only those of the last step."""
  run = make_run(
    tmp_path,
    caches,
    rollout=Rollout(0.5, mixing="example", off_policy_source=off_policy_source),
    evaluations=(make_evaluation(caches["validation"]),),
    train_steps=2,
    report=2,
    checkpoint=0,
    sample=2,
    config_text="# a config\n",
    about={"made": "here"},
  )
  loop.train(run)
  (names,) = lines(tmp_path)
  train = (
    f"loss loss/student loss/{off_policy_source} forward_kl reverse_kl"
    " student_entropy teacher_entropy agreement lambda sampled_length eos_rate"
    " truncation_rate learning_rate grad_norm param_norm"
  )
  expected = {f"train/{name}" for name in train.split()}
  phases = ("data", "sample", "update", "evaluate")
  expected |= {f"time/{phase}_seconds" for phase in phases}
  expected |= {"time/tokens_per_second", "compile/count", "memory/peak_bytes"}
  expected |= {"time/model_flops_per_second_per_chip", "time/chip_hours"}
  assert "time/model_flops_utilization" not in names  # of a CPU
  distances = ("forward_kl", "reverse_kl")
  expected |= {f"eval/sums/{x}" for x in ("accuracy", *distances)}
  expected |= {f"eval/sums/{x}_per_token" for x in distances}
  assert expected <= names.keys()
  reported = {
    x for x in names if x.startswith("eval/") and not x.endswith(SUFFIXES)
  }
  (evaluation,) = run.evaluations
  assert set(metric_infos([evaluation], run.roles)) == reported
  assert all(names[f"time/{phase}_seconds"] > 0 for phase in phases)
  other = {"dataset": "teacher", "teacher": "dataset"}[off_policy_source]
  assert f"train/loss/{other}" not in names
  assert (tmp_path / "config.gin").read_text() == "# a config\n"
  described = json.loads((tmp_path / "run.json").read_text())
  assert described["made"] == "here"
  assert described["settings"]["train_steps"] == 2
  info = (tmp_path / "model-info.txt").read_text()
  assert "encoder/layers_0/attention/query/kernel" in info
  sample = (tmp_path / "samples" / "step_00000002.jsonl").read_text()
  rows = [json.loads(line) for line in sample.splitlines()]
  assert {row["source"] for row in rows} == {"student", off_policy_source}
  assert all(row["teacher_log_prob"] < 0 for row in rows)
  assert all(row["prompt"].endswith("=") for row in rows)


def test_prompts_without_targets_train_only_on_policy(tmp_path, caches):
  loader = Loader(caches["prompts"], batch_size=8, lengths=LENGTHS, seed=0)
  with pytest.raises(UserError, match="prompts only") as error:
    make_run(tmp_path, caches, loader=loader)
  assert "\n" not in str(error.value)
  run = make_run(
    tmp_path,
    caches,
    loader=loader,
    rollout=Rollout(student_fraction=1.0),
    train_steps=2,
  )
  loop.train(run)
  assert all(record["train/lambda"] == 1 for record in records(tmp_path))


@pytest.mark.parametrize(
  ("checkpoint", "left"),
  [
    (4, "no checkpoint was saved yet"),
    (2, "INITIAL_CHECKPOINT_PATH=.*2 goes"),
  ],
)
def test_a_step_that_is_not_finite_stops_the_run(
  tmp_path, caches, monkeypatch, checkpoint, left
):
  """Steps 1 and 2 have one line, the bad one another, and files are closed."""
  original, steps = loop.update_step, []

  def update_step(plan, state, frozen, batch, seed):
    steps.append(1)
    if len(steps) == 3:
      frozen = jax.tree.map(lambda x: x * np.nan, frozen)
    return original(plan, state, frozen, batch, seed)

  monkeypatch.setattr(loop, "update_step", update_step)
  run = make_run(tmp_path, caches, report=4, checkpoint=checkpoint)
  message = rf"step 3: loss nan, .*: the teacher's .* another MODEL_DIR; {left}"
  with pytest.raises(FloatingPointError, match=message):
    loop.train(run)
  good, bad = lines(tmp_path)
  assert (good["step"], bad["step"]) == (2, 3)
  assert good["train/loss"] > 0
  assert bad["train/loss"] is None
  assert bad["train/grad_norm"] is None
  names = [x.name for x in (tmp_path / "checkpoints").glob("*")]
  assert names == ["00000002"] * (checkpoint == 2)


def test_a_step_is_launched_before_the_one_before_is_waited_for(
  tmp_path, caches, monkeypatch
):
  """Unless something is due: here the report of step 3 and the end."""
  order = []
  update, wait = loop.update_step, skipped_updates.raise_if_not_finite

  def update_step(plan, state, *rest):
    order.append("launch")
    return update(plan, state, *rest)

  def raise_if_not_finite(means, done):
    order.append(done)
    wait(means, done)

  monkeypatch.setattr(loop, "update_step", update_step)
  monkeypatch.setattr(
    skipped_updates, "raise_if_not_finite", raise_if_not_finite
  )
  loop.train(make_run(tmp_path, caches, report=3, checkpoint=0))
  launches = ["launch", "launch", 1, "launch", 2, 3]
  assert order == [
    *launches,
    *(x if x == "launch" else x + 3 for x in launches),
  ]


def test_on_several_devices_nothing_compiles_after_the_first_steps(
  tmp_path, caches
):
  mesh = partitioning.make_mesh()
  rule = tiny.adamw(learning_rate=3e-3)  # not compiled yet
  fields = {"mesh": mesh, "optimizer": rule, "rollout": None, "checkpoint": 0}
  loop.train(make_run(tmp_path, caches, **fields))
  counts = [line["compile/count"] for line in lines(tmp_path)]
  assert counts[0] > 0
  assert len(set(counts)) == 1


def test_a_teacher_that_is_not_finite_stops_the_run(tmp_path, caches):
  """In the loss, and where it has to write; the student stays as it was."""
  bad = jax.tree.map(lambda x: x * np.nan, parameters(TEACHER, 1))
  with pytest.raises(FloatingPointError, match="step 1: loss nan"):
    loop.train(make_run(tmp_path / "scored", caches, teacher=bad))
  assert not list((tmp_path / "scored" / "checkpoints").glob("*"))
  writing = Rollout(0.0, off_policy_source="teacher")
  with pytest.raises(FloatingPointError, match="the teacher's logits are not"):
    loop.train(
      make_run(tmp_path / "asked", caches, teacher=bad, rollout=writing)
    )
  assert not lines(tmp_path / "asked")  # of an update on garbage


def test_an_update_that_is_not_finite_is_not_saved(tmp_path, caches):
  rule = tiny.adamw(learning_rate=3e38, weight_decay=3e38)
  run = make_run(tmp_path, caches, optimizer=rule, checkpoint=1)
  message = r"step 1: loss \d.*: the updated parameters .* LEARNING_RATE"
  with pytest.raises(FloatingPointError, match=message):
    loop.train(run)
  assert not list((tmp_path / "checkpoints").glob("*"))


@pytest.mark.parametrize(
  ("error", "kind", "message"),
  [
    (
      MemoryError("16 TiB"),
      UserError,
      r"memory is out \(16 TiB\); lower BATCH_SIZE",
    ),
    (
      RuntimeError("INTERNAL: Error: Out of memory allocating 9 bytes.\nat"),
      UserError,
      r"memory is out \(Out of memory allocating 9 bytes\); lower BATCH_SIZE",
    ),
    (RuntimeError("another"), RuntimeError, "^another$"),
  ],
)
def test_a_run_without_memory_names_its_macros(
  tmp_path, caches, monkeypatch, error, kind, message
):
  def update_step(*_):
    raise error

  monkeypatch.setattr(loop, "update_step", update_step)
  with pytest.raises(kind, match=message):
    loop.train(make_run(tmp_path, caches))


def test_each_batch_is_read_once(tmp_path, caches, monkeypatch):
  """Also where prompts are cut to the smallest bucket."""

  def roll_out(batch, **kwargs):
    raise Stop(kwargs["input_width"])

  run = make_run(
    tmp_path,
    caches,
    teacher=None,
    objective=CrossEntropy(),
    rollout=Rollout(1.0, input_buckets=(7,)),
  )
  read, batch = [], run.loader.batch
  monkeypatch.setattr(loop, "roll_out", roll_out)
  monkeypatch.setattr(
    run.loader, "batch", lambda *args: read.append(args) or batch(*args)
  )
  with pytest.raises(Stop) as stop:
    loop.train(run)
  assert stop.value.args[0] in (7, 8)
  assert len(read) == 1


def test_a_teacher_is_scored_only_for_an_objective_that_needs_it(
  tmp_path, caches, monkeypatch
):
  def update_step(plan, state, frozen, batch, seed):
    raise Stop(dict(plan.frozen), frozen)

  monkeypatch.setattr(loop, "update_step", update_step)
  by_teacher = Rollout(0.0, off_policy_source="teacher")
  run = make_run(tmp_path, caches, objective=CrossEntropy(), rollout=by_teacher)
  with pytest.raises(Stop) as stop:
    loop.train(run)
  assert stop.value.args == ({}, {})
  with pytest.raises(Stop) as stop:
    loop.train(make_run(tmp_path, caches))
  assert stop.value.args[0] == {"teacher": TEACHER}
  assert stop.value.args[1].keys() == {"teacher"}


def test_a_teacher_in_host_memory_changes_no_number(
  tmp_path, caches, monkeypatch
):
  """Scored, sampled from, measured against; it never leaves the host."""
  update_step, kinds, states = loop.update_step, {}, {}

  def watched(plan, state, frozen, *arguments):
    result = update_step(plan, state, frozen, *arguments)
    memory = plan.frozen["teacher"].memory
    kinds[memory] = {x.sharding.memory_kind for x in jax.tree.leaves(frozen)}
    return result

  monkeypatch.setattr(loop, "update_step", watched)
  for memory in ("device", "pinned_host"):
    teacher = dataclasses.replace(TEACHER, memory=memory)
    run = make_run(
      tmp_path / memory,
      caches,
      roles={
        "student": Model(STUDENT, parameters(STUDENT, 0)),
        "teacher": Model(teacher, parameters(TEACHER, 1)),
      },
      rollout=Rollout(0.5, off_policy_source="teacher"),
      train_steps=2,
      evaluations=(make_evaluation(caches["validation"]),),
      eval=2,
    )
    states[memory] = loop.train(run)
  assert kinds == {memory: {memory} for memory in states}
  assert_identical(states["pinned_host"], states["device"])
  assert records(tmp_path / "pinned_host") == records(tmp_path / "device")


def test_trains_and_evaluates_where_tensorflow_cannot_be_imported(
  tmp_path, caches
):
  """A child process whose imports of the data side and of torch raise."""
  script = """
    import sys

    # None makes an import raise and the module look absent.
    blocked = ("tensorflow", "seqio", "torch", "tensorflow_datasets", "t5")
    sys.modules.update(dict.fromkeys(blocked))
    from gkd.data.cache import TokenCache
    from gkd.training import loop
    from gkd.training.rollout import Rollout
    from tests import tiny

    folder, *paths = sys.argv[1:]
    train, validation = map(TokenCache, paths)
    run = tiny.make_run(
      folder, {"train": train}, rollout=Rollout(1.0), train_steps=2,
      evaluations=(tiny.make_evaluation(validation),))
    loop.train(run)
    assert not any(name.startswith("tensorflow.") for name in sys.modules)
  """
  paths = [caches[name].path for name in ("train", "validation")]
  child.run(script, tmp_path, *paths)
  last = records(tmp_path)[-1]
  assert {"eval/sums/accuracy", "eval/sums/reverse_kl"} <= last.keys()
  assert last["train/lambda"] == 1


def test_importing_the_loop_is_light():
  """At most 2 s of CPU time over jax, flax and optax; the best of three."""
  script = """
    import sys, time
    import jax, flax, optax
    start = time.process_time()
    import gkd.training.loop
    print(time.process_time() - start)
    assert not {"tensorboardX", "tensorflow"} & set(sys.modules)
  """
  # What else the machine does only adds to it: one try is enough when idle.
  assert any(float(child.run(script)) < 2.0 for _ in range(3))
