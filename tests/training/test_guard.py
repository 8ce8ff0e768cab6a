"""The guard decides by the evaluations alone, and the same after a kill."""

import dataclasses
import json
import signal

import numpy as np
import pytest

from gkd.checkpoints.retention import PreservationPolicy
from gkd.checkpoints.store import Store
from gkd.losses.objective import CrossEntropy
from gkd.metrics import Mean
from gkd.training import loop
from gkd.training.guard import Guard
from gkd.training.guard_controller import Controller
from gkd.training.preemption import Interrupted
from gkd.training.rollout import Rollout
from gkd.types import UserError
from tests.tiny import assert_identical
from tests.tiny import make_evaluation
from tests.tiny import make_run
from tests.tiny import records

METRIC = "eval/sums/forward_kl_per_token"
STEPS = [round(10 ** (k / 8)) for k in range(8, 25)]  # 10 to 1,000
BREAK = 100  # from here on what is trained on is memorised
OFFLINE = Rollout(student_fraction=0.0)


def controller(folder, saved=None, plan=OFFLINE, metric=METRIC, **guard):
  return Controller(
    Guard(**guard),
    metric=metric,
    plan=plan,
    batch_size=8,
    num_rows=40,
    first_step=0,
    folder=folder,
    saved=saved or {},
  )


def means(step, by_student=0.0):
  """Of one step; the distance on trained texts falls faster after BREAK."""
  kl = step**-0.3 * min(1, BREAK / step) ** 2
  return {
    "lambda": Mean(np.float32(8 * by_student), np.float32(8)),
    "forward_kl": Mean(np.float32(100 * kl), np.float32(100)),
  }


def drive(guard, steps=STEPS, by_student=0.0, folder=None):
  """{step: values} of evaluations that follow a power law throughout."""
  found, done = {}, 0
  for step in steps:
    for done in range(done + 1, step + 1):  # noqa: B020
      guard.add(means(done, by_student))
    held_out = {METRIC: 2 * step**-0.3}
    found[step] = guard.observe(step, held_out, lambda until: folder)
  return found


def test_memorised_texts_raise_the_alarm_soon_after_the_break(tmp_path):
  checkpoint = tmp_path / "checkpoints" / "00000090"
  guard = controller(tmp_path, mode="stop")
  found = drive(guard, folder=checkpoint)
  alarm = min(step for step, x in found.items() if x.get("guard/alarm"))
  assert BREAK < alarm <= 3.2 * BREAK
  assert found[alarm]["guard/memorised"] >= 0.8
  assert found[alarm]["guard/gap_growth"] > 1.2
  assert found[alarm]["guard/repeats"] == alarm * 8 / 40
  assert guard.is_stopped
  told = json.loads((tmp_path / "guard.json").read_text())
  onset = told["alarm"]["onset"]
  assert told["alarm"]["step"] == alarm
  assert BREAK < onset < alarm
  assert told["alarm"]["last_clean"] == STEPS[STEPS.index(onset) - 1]
  assert told["alarm"]["checkpoint"] == "checkpoints/00000090"
  assert told["series"]["steps"] == STEPS
  assert told["power_law"]["slope"] == pytest.approx(-0.3)
  assert told["words"].startswith(
    f"Teacher hacking suspected from step {onset} on. At step {alarm} 8"
  )
  assert "00000090 is from before the onset." in told["words"]


@pytest.mark.parametrize(
  ("plan", "by_student"),
  [(Rollout(1.0), 1.0), (Rollout(0.0, off_policy_source="teacher"), 0.0)],
)
def test_fresh_texts_raise_no_alarm(tmp_path, plan, by_student):
  found = drive(controller(tmp_path, plan=plan), by_student=by_student)
  assert all(x.get("guard/repeats", 0) == 0 for x in found.values())
  assert found[1000]["guard/alarm"] == 0
  told = json.loads((tmp_path / "guard.json").read_text())
  assert told["words"].startswith("No teacher hacking seen so far. At step 1,0")


def test_too_few_evaluations_or_no_distance_say_nothing(tmp_path):
  assert not any(drive(controller(tmp_path), STEPS[:7]).values())
  guard = controller(tmp_path, metric="")
  assert not any(drive(guard).values())
  assert guard.notes() == {}
  assert not (tmp_path / "guard.json").exists()


def test_without_the_trained_distance_nothing_is_claimed(tmp_path):
  guard = controller(tmp_path)
  for step in STEPS:
    guard.add({"lambda": Mean(np.float32(0), np.float32(8))})  # as of SeqKD
    guard.observe(step, {METRIC: 2 * step**-0.3}, lambda until: None)
  told = json.loads((tmp_path / "guard.json").read_text())
  assert told["words"].startswith("Nothing can be said without memorised. At")


def test_another_metric_begins_a_series_of_its_own(tmp_path):
  guard = controller(tmp_path)
  drive(guard)
  saved = guard.notes()["guard"]
  assert controller(tmp_path, saved).notes() == guard.notes()
  other = controller(tmp_path, saved, metric="eval/x/forward_kl_per_token")
  assert other.notes()["guard"]["history"] == []
  off = controller(tmp_path, saved, metric="", mode="off")
  off.observe(STEPS[-1], {}, lambda until: None)
  assert off.notes() == guard.notes()


def test_evaluations_close_to_each_other_are_one(tmp_path):
  guard = controller(tmp_path)
  drive(guard, range(10, 41))
  steps = [row[0] for row in guard.notes()["guard"]["history"]]
  assert steps == [10, 12, 14, 16, 18, 21, 24, 27, 31, 35, 40]


def test_going_online_keeps_all_of_the_plan_but_who_writes(tmp_path):
  plan = Rollout(0.0, mixing="example", input_buckets=(4,))
  guard = controller(tmp_path, plan=plan, mode="go_online", student_fraction=0)
  assert guard.plan is plan
  drive(guard)
  assert guard.plan == Rollout(
    0, mixing="example", off_policy_source="teacher", input_buckets=(4,)
  )


def test_a_restored_guard_goes_on_to_the_bit(tmp_path):
  """From the notes after each evaluation, between which steps are cut."""
  straight = controller(tmp_path)
  expected = drive(straight)
  saved, found, done = {}, {}, 0
  for step in STEPS:
    guard = controller(tmp_path, saved.get("guard"))
    for done in range(done + 1, step + 1):  # noqa: B020
      guard.add(means(done))
      if done == step - 1:
        text = json.dumps(guard.notes())
        guard = controller(tmp_path, json.loads(text)["guard"])
    evaluated = {METRIC: 2 * step**-0.3}
    found[step] = guard.observe(step, evaluated, lambda until: None)
    saved = json.loads(json.dumps(guard.notes()))
  assert found == expected
  assert guard.notes() == straight.notes()


@pytest.mark.parametrize(
  ("fields", "distances", "no_teacher", "expected"),
  [
    ({"mode": "off"}, ["forward_kl"], "", slice(1, None)),
    ({}, ["forward_kl"], "there is no teacher", slice(None)),
    ({}, ["reverse_kl"], "", slice(None)),
    ({"metric": METRIC}, ["reverse_kl"], "", slice(-1, None)),
    ({"mode": "go_online"}, ["forward_kl"], "", slice(0)),
  ],
)
def test_what_has_no_effect_without_a_distance_to_observe(
  fields, distances, no_teacher, expected
):
  macros = ["GUARD", "GUARD_METRIC", "GUARD_MEMORISED"]
  macros += ["GUARD_GAP_GROWTH", "GUARD_REPEATS", "GUARD_Z"]
  macros += ["GUARD_DELTA_BIC", "GUARD_EVALUATIONS"]
  macros += ["GUARD_STUDENT_FRACTION"]
  idle = Guard(**fields).idle(distances, no_teacher)
  assert [name for names, _ in idle for name in names] == macros[expected]


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"mode": "warm"}, r"GUARD is 'warm'; expected one of \('off', 'warn'"),
    ({"gap_growth": float("nan")}, "GUARD_GAP_GROWTH is nan; expected a numb"),
    ({"memorised": None, "repeats": None}, "are all None; give one of them"),
    ({"evaluations": 0}, "GUARD_EVALUATIONS is 0; give at least 1"),
    ({"student_fraction": 2}, "GUARD_STUDENT_FRACTION is 2; expected a number"),
  ],
)
def test_wrong_settings_are_refused(fields, message):
  with pytest.raises(UserError, match=message):
    Guard(**fields)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (
      {"guard": Guard(metric="eval/x")},
      "GUARD_METRIC is 'eval/x', which is no",
    ),
    (
      {"guard": Guard(metric="eval/sums/accuracy")},
      "accuracy', which is no distance .* choose one of eval/sums/forward_kl_p",
    ),
    (
      {"guard": Guard(mode="stop"), "objective": CrossEntropy()},
      "GUARD is 'stop' but the objective does not compare",
    ),
    (
      {
        "guard": Guard(mode="go_online", memorised=None),
        "objective": CrossEntropy(),
      },
      "but cross-entropy learns nothing from the student's own texts",
    ),
    (
      {"guard": Guard(mode="stop"), "evaluations": ()},
      "GUARD is 'stop' but no evaluation measures forward_kl",
    ),
    (
      {"guard": Guard(mode="go_online"), "rollout": None},
      "GUARD is 'go_online' but the run has no rollout",
    ),
  ],
)
def test_a_guard_that_could_never_act_is_refused(
  tmp_path, make, fields, message
):
  with pytest.raises(UserError, match=message):
    make(tmp_path, **fields)


class Stop(Exception):
  """A run that is killed."""


def evaluate(evaluation, roles, *, step, on_answers, **others):
  """Instead of the true one: a power law until step 9, then far above it."""
  del evaluation, roles, others
  on_answers([[]])
  return {METRIC: step**-0.3 * (2 if step > 9 else 1)}


@pytest.fixture
def make(caches, monkeypatch):
  """A run whose guard sees a departure at step 11, with checkpoints 3, 6, …"""
  monkeypatch.setattr(loop, "evaluate", evaluate)

  def make(folder, mode="go_online", **changes):
    guard = Guard(mode=mode, z=3.0, memorised=None, evaluations=1)
    fields = {
      "evaluations": (make_evaluation(caches["validation"]),),
      "rollout": OFFLINE,
      "train_steps": 14,
      "eval": 1,
      "checkpoint": 3,
      "preservation": PreservationPolicy(latest=1),
      "guard": guard,
    }
    return make_run(folder, caches, **fields | changes)

  return make


def contents(folder):
  left = Store(folder / "checkpoints").steps()
  return records(folder), left, (folder / "guard.json").read_text()


def test_a_killed_run_goes_online_as_if_it_had_not_been(tmp_path, make, caplog):
  straight = loop.train(make(tmp_path / "straight"))
  assert "from before the onset: INITIAL_CHECKPOINT_PATH=" in caplog.text
  lines, left, _ = expected = contents(tmp_path / "straight")
  assert [x["train/lambda"] for x in lines] == [0.0] * 11 + [1.0] * 3
  assert left == [9, 14]  # the one from before the onset, and the last
  for stopped in (11, 13):

    def kill(step, values, stopped=stopped):
      if step == stopped:
        raise Stop

    with pytest.raises(Stop):
      loop.train(make(tmp_path / "killed"), kill)
  assert_identical(loop.train(make(tmp_path / "killed")), straight)
  assert contents(tmp_path / "killed") == expected


def test_a_stop_found_in_an_evaluation_made_again_is_decided_once(
  tmp_path, make, monkeypatch, caplog
):
  made = []

  def interrupted(*args, step, **others):
    made.append(step)
    if made.count(11) == 1 and step == 11:
      signal.raise_signal(signal.SIGTERM)
    return evaluate(*args, step=step, **others)

  run = make(tmp_path, "stop")
  monkeypatch.setattr(loop, "evaluate", interrupted)
  with pytest.raises(Interrupted):
    loop.train(run)
  for _ in range(2):
    assert int(loop.train(run).step) == 11
  assert made[-2:] == [11, 11]
  assert caplog.text.count("Teacher hacking suspected") == 1
  assert records(tmp_path)[-1]["guard/alarm"] == 1
  # Another threshold decides anew, on the same evaluations.
  guard = Guard(mode="stop", z=1e9, memorised=None)
  loop.train(dataclasses.replace(run, guard=guard))
  loop.train(make(tmp_path / "straight", guard=guard))
  straight = (tmp_path / "straight" / "guard.json").read_text()
  assert (tmp_path / "guard.json").read_text() == straight


def test_a_stopped_run_stays_stopped_until_the_guard_changes(
  tmp_path, make, caplog
):
  for _ in range(2):
    state = loop.train(make(tmp_path, "stop", report=4))
    assert int(state.step) == 11
  assert "stays as it was after step 11: its guard has seen" in caplog.text
  assert contents(tmp_path)[1] == [9, 11]
  assert records(tmp_path)[-1]["guard/alarm"] == 1
  loop.train(make(tmp_path, "off", report=4))
  (line,) = (x for x in records(tmp_path) if x["step"] == 11)
  assert line["guard/alarm"] == 1
  assert "train/loss" not in line  # its means are those of the report at 12
  assert contents(tmp_path)[1] == [9, 14]  # guard.json still names the first
  free = loop.train(make(tmp_path / "free", "off"))
  assert_identical(loop.train(make(tmp_path, "off")), free)
