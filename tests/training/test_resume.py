"""A run that was stopped anywhere ends with the files of one that was not."""

import dataclasses
import functools
import json
import pathlib
import shutil
import signal
import threading
import time

import jax
import numpy as np
import pytest

from gkd import locks
from gkd import partitioning
from gkd.checkpoints import checksums
from gkd.checkpoints.native import run_folder
from gkd.checkpoints.retention import PreservationPolicy
from gkd.checkpoints.store import Store
from gkd.training import loop
from gkd.training import state as states
from gkd.training.preemption import Interrupted
from gkd.types import UserError
from tests.tiny import STEPS
from tests.tiny import STUDENT
from tests.tiny import assert_identical
from tests.tiny import make_evaluation
from tests.tiny import make_run
from tests.tiny import records

# Reports, evaluations, checkpoints and dumps at steps of their own, and the
# best checkpoint beside the newest.
EVERYTHING = {
  "report": 4,
  "eval": 0,
  "eval_log_steps": 3,
  "eval_first": True,
  "checkpoint": 2,
  "sample": 3,
  "preservation": PreservationPolicy(
    latest=1, best=1, metric="eval/sums/forward_kl", mode="min"
  ),
}
EVALUATED = [0, 1, 2, 5, 6]


class Stop(Exception):
  """A run that is killed."""


def evaluate(evaluation, roles, *, step, predictions_dir, on_answers, **others):
  """Instead of the true one: quick, and different at every step."""
  del evaluation, others
  params = roles["student"].params
  size = float(sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(params)))
  file = pathlib.Path(predictions_dir) / f"sums-validation-{step:08d}.jsonl"
  file.parent.mkdir(exist_ok=True)
  file.write_text(json.dumps({"size": size}) + "\n")
  on_answers([[]])
  # Best at step 2, which is not among the newest at the end.
  distance = abs(step - 2.5) + size / 1e6
  return {"eval/sums/size": size, "eval/sums/forward_kl": distance}


@pytest.fixture(scope="module")
def make(caches):
  def make(folder, **changes):
    fields = {"evaluations": (make_evaluation(caches["validation"]),)}
    return make_run(folder, caches, **fields | EVERYTHING | changes)

  return make


@pytest.fixture(scope="module")
def quick():
  """No true evaluations in this file."""
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(loop, "evaluate", evaluate)
    yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory, make, quick):
  """State and files of a run that nothing stopped."""
  folder = tmp_path_factory.mktemp("straight")
  return loop.train(make(folder)), contents(folder)


def contents(folder) -> dict:
  """Everything that a run leaves, without times."""
  texts = {
    str(file.relative_to(folder)): file.read_text()
    for kind in ("samples", "predictions")
    for file in (folder / kind).rglob("*")
  }
  left = sorted(f.name for f in (folder / "checkpoints").iterdir())
  return {"records": records(folder), "checkpoints": left} | texts


@pytest.fixture
def at(monkeypatch):
  """Does something once at each of some moments, (function, finished steps)."""
  armed = {}

  def wrap(name, done_of):
    original = getattr(loop, name)

    @functools.wraps(original)
    def replaced(*args, **kwargs):
      action = armed.pop((name, done_of(args, kwargs)), None)
      if action is not None:
        action()
      return original(*args, **kwargs)

    monkeypatch.setattr(loop, name, replaced)

  def arm(moments, action):
    armed.update(dict.fromkeys(moments, action))
    return armed

  wrap("update_step", lambda args, _: int(args[1].step) + 1)
  wrap("evaluate", lambda _, kwargs: kwargs["step"])
  return arm


def stop():
  raise Stop


def terminate():
  signal.raise_signal(signal.SIGTERM)


def interrupt():
  signal.raise_signal(signal.SIGINT)


MOMENTS = [("update_step", done) for done in range(1, STEPS + 1)] + [
  ("evaluate", done) for done in EVALUATED
]


def test_the_straight_run_is_as_described(straight):
  state, found = straight
  assert int(state.step) == STEPS
  evaluated = [x["step"] for x in found["records"] if "eval/sums/size" in x]
  assert evaluated == EVALUATED
  trained = [x["step"] for x in found["records"] if "train/loss" in x]
  assert trained == [4, 6]  # a report, and the rest at the end
  assert found["checkpoints"] == ["00000002", "00000006"]
  assert {x for x in found if x.startswith("samples/")} == {
    "samples/step_00000003.jsonl",
    "samples/step_00000006.jsonl",
  }
  assert sum(name.startswith("predictions/") for name in found) == 5


def test_errors_at_every_step_and_evaluation_change_nothing(
  tmp_path, make, straight, at
):
  armed, errors = at(MOMENTS, stop), 0
  while armed:
    with pytest.raises(Stop):
      loop.train(make(tmp_path))
    errors += 1
  assert errors == len(MOMENTS)
  assert_identical(loop.train(make(tmp_path)), straight[0])
  assert contents(tmp_path) == straight[1]


def test_signals_at_every_step_and_evaluation_lose_nothing(
  tmp_path, make, straight, at
):
  """Each ends with a checkpoint of its own step, whatever the period."""
  before = list(map(signal.getsignal, (signal.SIGTERM, signal.SIGINT)))
  at(MOMENTS[::2], terminate)
  armed = at(MOMENTS[1::2], interrupt)
  ends = []
  while armed:
    with pytest.raises(Interrupted) as stopped:
      loop.train(make(tmp_path))
    done = Store(tmp_path / "checkpoints").latest_step() or 0
    ends.append((done, stopped.value.exit_code))
    words = {143: "SIGTERM", 130: "ctrl-C"}[stopped.value.exit_code]
    expected = f"stopped by {words} after step {done} of 6; the same command"
    assert expected in str(stopped.value)
  # The evaluation of a step follows it: at 5 the one is left, then the other.
  assert [done for done, _ in ends] == [0, 1, 1, 2, 2, 3, 4, 5, 5, 6, 6]
  assert {code for _, code in ends} == {130, 143}
  after = list(map(signal.getsignal, (signal.SIGTERM, signal.SIGINT)))
  assert after == before
  assert_identical(loop.train(make(tmp_path)), straight[0])
  assert contents(tmp_path) == straight[1]
  # Once more: it is complete now, and nothing is evaluated again.
  at([("evaluate", STEPS)], stop)
  assert_identical(loop.train(make(tmp_path)), straight[0])
  assert contents(tmp_path) == straight[1]


def test_a_checkpoint_in_passing_pushes_out_none(tmp_path, make, quick, at):
  run = make(tmp_path, checkpoint=2, preservation=PreservationPolicy(latest=2))
  at([("update_step", 3), ("update_step", 5)], terminate)
  for left in ([2, 3], [2, 4, 5]):
    with pytest.raises(Interrupted):
      loop.train(run)
    assert Store(tmp_path / "checkpoints").steps() == left
  loop.train(run)
  assert Store(tmp_path / "checkpoints").steps() == [4, 6]


def test_the_second_interrupt_stops_at_once(tmp_path, make, quick, at):
  def twice():
    first = signal.getsignal(signal.SIGINT)
    interrupt()
    # Python handles a signal between two steps of its own; two at once are one.
    while signal.getsignal(signal.SIGINT) is first:
      time.sleep(0.001)
    interrupt()

  at([("update_step", 2)], twice)
  with pytest.raises(KeyboardInterrupt) as stopped:
    loop.train(make(tmp_path))
  assert not isinstance(stopped.value, Interrupted)
  assert Store(tmp_path / "checkpoints").latest_step() is None


def test_a_run_in_another_thread_leaves_signals_alone(
  tmp_path, make, quick, straight
):
  before = signal.getsignal(signal.SIGTERM)
  states, handlers = [], []

  def work():
    states.append(
      loop.train(
        make(tmp_path),
        lambda *_: handlers.append(signal.getsignal(signal.SIGTERM)),
      )
    )

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert set(handlers) == {before}
  assert_identical(states[0], straight[0])


def test_lines_of_training_do_not_depend_on_what_else_is_done(
  tmp_path, make, straight
):
  run = make(
    tmp_path,
    evaluations=(),
    checkpoint=0,
    sample=0,
    preservation=PreservationPolicy(),
  )
  assert_identical(loop.train(run), straight[0])
  trained = [
    {k: v for k, v in line.items() if not k.startswith("eval/")}
    for line in straight[1]["records"]
    if "train/loss" in line
  ]
  assert records(tmp_path) == trained


def test_a_longer_run_has_the_lines_of_one_that_was_as_long_from_the_start(
  tmp_path, make, straight
):
  """The line at the end of the shorter run is no line of the longer one."""
  loop.train(make(tmp_path, train_steps=5))
  assert [x["step"] for x in records(tmp_path) if "train/loss" in x] == [4, 5]
  assert_identical(loop.train(make(tmp_path)), straight[0])
  assert contents(tmp_path)["records"] == straight[1]["records"]


def test_periods_may_change_from_now_on(tmp_path, make, quick, at):
  at([("update_step", 6)], stop)
  with pytest.raises(Stop):
    loop.train(make(tmp_path, report=3))
  loop.train(
    make(
      tmp_path,
      report=5,
      eval_log_steps=0,
      preservation=PreservationPolicy(),
    )
  )
  # Resumed after step 4; the line of step 3 is that of the period before.
  trained = [x["step"] for x in records(tmp_path) if "train/loss" in x]
  assert trained == [3, 5, 6]
  evaluated = [x["step"] for x in records(tmp_path) if "eval/sums/size" in x]
  assert evaluated == [0, 1, 2, 6]


def test_damaged_checkpoints_are_passed_over_and_the_run_ends_the_same(
  tmp_path, make, straight, caplog
):
  loop.train(make(tmp_path, preservation=PreservationPolicy(latest=3)))
  folder = tmp_path / "checkpoints"
  notes = folder / "00000006" / "notes.json"
  notes.write_bytes(notes.read_bytes()[:-1])
  (folder / "00000004" / "sha256.json").unlink()
  caplog.set_level("INFO", "gkd")
  assert_identical(loop.train(make(tmp_path)), straight[0])
  assert "00000006: notes.json differs from what was written" in caplog.text
  assert "00000004: a save was interrupted there" in caplog.text
  assert "resuming after step 2" in caplog.text
  assert contents(tmp_path) == straight[1]


@pytest.mark.parametrize(
  ("other", "message"),
  [
    ("00000002", "holds the state after step 2, not 4 as its name says"),
    (None, r"00000004 is a checkpoint of another run \(identity "),
  ],
)
def test_a_checkpoint_of_another_step_or_run_is_refused(
  tmp_path, make, quick, other, message
):
  fields = {"train_steps": 4, "preservation": PreservationPolicy()}
  folders = tmp_path / "run", tmp_path / "other"
  for seed, folder in enumerate(folders):
    loop.train(make(folder, seed=seed, **fields))
  own, foreign = (folder / "checkpoints" for folder in folders)
  shutil.rmtree(own / "00000004")
  if other:
    (own / other).rename(own / "00000004")
  else:
    (foreign / "00000004").rename(own / "00000004")
  before = sorted(tmp_path.rglob("*"))
  with pytest.raises(UserError, match=message):
    loop.train(make(folders[0], seed=0))
  assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_goes_on_keeps_its_identity(tmp_path, make, quick):
  """Also with other settings, where they may change."""
  for keep, steps in enumerate((2, 4), start=2):
    policy = PreservationPolicy(latest=keep)
    loop.train(make(tmp_path, train_steps=steps, preservation=policy))
  identity = run_folder.describe_run(tmp_path)["identity"]
  store = Store(tmp_path / "checkpoints")
  assert {store.metadata(s)["identity"] for s in store.steps()} == {identity}


def test_lines_that_are_gone_are_missed(tmp_path, make, quick, caplog):
  loop.train(make(tmp_path, train_steps=4))
  (tmp_path / "metrics.jsonl").unlink()
  kept = Store(tmp_path / "checkpoints").steps()
  # Without them the best checkpoint would go.
  with pytest.raises(UserError, match=r"metrics.jsonl is missing, .*KEEP_BEST"):
    loop.train(make(tmp_path))
  assert Store(tmp_path / "checkpoints").steps() == kept
  loop.train(make(tmp_path, preservation=PreservationPolicy()))
  assert "metrics.jsonl is gone: it begins again after step 4" in caplog.text


def test_fewer_steps_that_are_done_end_as_if_they_had_been_asked_for(
  tmp_path, make, straight, at
):
  """A checkpoint at the new end, whose evaluation and last means are due."""
  fields = {"eval_log_steps": 0, "preservation": PreservationPolicy()}
  loop.train(make(tmp_path / "short", train_steps=2, **fields))
  fewer = tmp_path / "fewer"
  at([("update_step", 4)], stop)
  with pytest.raises(Stop):
    loop.train(make(fewer, **fields))
  loop.train(make(fewer, train_steps=2, **fields))
  assert records(fewer) == records(tmp_path / "short")
  # Now it is complete.
  at([("evaluate", 2)], stop)
  loop.train(make(fewer, train_steps=2, **fields))
  assert records(fewer) == records(tmp_path / "short")


def test_fewer_steps_whose_evaluation_is_there_lack_only_the_means(
  tmp_path, make, quick, at
):
  at([("update_step", 4)], stop)
  with pytest.raises(Stop):
    loop.train(make(tmp_path))
  at([("evaluate", 2)], stop)
  for _ in range(2):
    loop.train(make(tmp_path, train_steps=2, preservation=PreservationPolicy()))
    twos = [line for line in records(tmp_path) if line["step"] == 2]
    kinds = [{name.partition("/")[0] for name in line} for line in twos]
    assert kinds == [{"step", "eval"}, {"step", "train"}]


def test_a_failed_save_stops_the_run_at_the_next_step(
  tmp_path, make, quick, at, monkeypatch
):
  failed = threading.Event()

  def fail(path):
    failed.set()
    raise RuntimeError("the disk is gone")

  def wait():
    assert failed.wait(60)
    time.sleep(0.2)  # for the thread to end

  monkeypatch.setattr(checksums, "write_hashes", fail)
  run = make(
    tmp_path,
    checkpoint=4,
    report=1,
    preservation=PreservationPolicy(),
  )
  at([("update_step", 5)], wait)
  with pytest.raises(RuntimeError, match="the disk is gone"):
    loop.train(run)
  assert records(tmp_path)[-1]["step"] == 5


def test_processes_that_only_jax_knows_are_refused(tmp_path, make, monkeypatch):
  run = make(tmp_path / "run")
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(UserError, match="one of 2 JAX processes that gkd does"):
    loop.train(run)
  assert not (tmp_path / "run").exists()


def test_the_hash_of_what_is_no_longer_read_is_kept(tmp_path, make, quick, at):
  """Of the student's first checkpoint, which may be gone."""
  run = make(tmp_path)
  gone = dataclasses.replace(run.student, path="first")
  student = dataclasses.replace(gone, content_sha256="i")
  roles = run.roles | {"student": student}
  at([("update_step", 4)], stop)
  with pytest.raises(Stop):
    loop.train(make(tmp_path, roles=roles))
  before = run_folder.describe_run(tmp_path)
  loop.train(make(tmp_path, roles=run.roles | {"student": gone}))
  after = run_folder.describe_run(tmp_path)
  assert after["contents"] == before["contents"]
  assert after["contents"]["initial_checkpoint"] == "i"
  assert after["roles"]["student"] == before["roles"]["student"]
  assert after["roles"]["student"]["initial"]["path"] == "first"


def test_two_processes_in_one_folder(tmp_path, make, monkeypatch):
  run = make(tmp_path)
  made = []
  monkeypatch.setattr(states, "initial_state", lambda *_: made.append(1))
  with (
    locks.hold(tmp_path / ".lock", "it"),
    pytest.raises(UserError, match=r"MODEL_DIR .* is in use by process"),
  ):
    loop.train(run)
  assert not made


MESHES = {
  "one": lambda: partitioning.make_mesh(devices=jax.devices()[:1]),
  "four": lambda: partitioning.make_mesh(devices=jax.devices()[:4]),
  # Two copies of a model that is split over two devices.
  "split": lambda: partitioning.make_mesh(model=2),
  # Each with rows of its own and a quarter of the model.
  "shared": lambda: partitioning.make_mesh(fsdp=4),
}


@pytest.mark.parametrize(
  ("first", "then"),
  [("shared", "one"), ("one", "four"), ("four", "split"), ("one", "shared")],
)
def test_other_devices_go_on_with_the_same_values(
  tmp_path, make, straight, at, first, then
):
  """Restored to the bit, optimizer included; then the same within rounding."""
  meshes = [MESHES[first](), MESHES[then]()]
  at([("update_step", 5)], stop)
  with pytest.raises(Stop):
    loop.train(make(tmp_path, mesh=meshes[0]))
  shutil.copytree(tmp_path / "checkpoints", tmp_path / "copy")
  restored = []
  for mesh in meshes:
    run = make(tmp_path, mesh=mesh)
    like = states.abstract_state(STUDENT, run.optimizer, mesh)
    state = Store(tmp_path / "copy").restore(4, like)
    devices = {len(x.sharding.device_set) for x in jax.tree.leaves(state)}
    assert devices == {mesh.size}
    restored.append(state)
  assert_identical(*restored)
  kernel = restored[1].params["token_embedder"]["embedding"]
  assert kernel.sharding.is_fully_replicated == (
    then not in ("split", "shared")
  )
  moments = jax.tree.leaves(jax.device_get(restored[0].opt_state))
  assert sum(bool(np.any(leaf)) for leaf in moments) > 10
  state = loop.train(make(tmp_path, mesh=meshes[1]))
  jax.tree.map(
    # AdamW divides by the root of tiny squares, which magnifies rounding.
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    *jax.device_get((state, straight[0])),
  )
