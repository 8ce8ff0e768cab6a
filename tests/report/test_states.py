"""How far runs are, from their files alone."""

import math

import pytest

from gkd.report import states
from gkd.report.runs import Run


def _run(name="a", steps=(10,), losses=(1.0,), planned="", **fields):
  config = {"TRAIN_STEPS": planned} if planned else {}
  metrics = {"train/loss": (list(steps), list(losses))}
  return Run(name, name, metrics, config, "", {}, [], **fields)


@pytest.mark.parametrize(
  ("planned", "words"),
  [
    ("1000", "1,000"),
    ("2000", "1,000 of 2,000"),
    ("500", "1,000"),
    ("%OTHER", "1,000"),
    ("", "1,000"),
  ],
)
def test_updates_are_those_done_of_those_planned(planned, words):
  assert states.updates(_run(steps=[1000], planned=planned)) == words


def test_evaluation_has_no_updates():
  assert states.updates(_run(is_evaluation=True)) == "–"


def test_whole_runs_need_no_note():
  whole = [_run(planned="10"), _run(planned=""), _run(is_evaluation=True)]
  assert states.notes(whole, []) == []


def test_notes_say_what_is_not_whole():
  found = [
    _run("seed_2/sft", planned="40"),
    _run("b", [10, 20], [1.0, math.nan], "40"),
    _run("c", planned="10", notes=["config.gin is missing"]),
  ]
  assert states.notes(found, ["new"]) == [
    (
      "Student after SFT, seed 2",
      "reported 10 of 40 updates (25 %) so far: it was stopped or goes on",
    ),
    ("b", "stopped at update 20: its loss or gradient was not finite"),
    ("c", "config.gin is missing"),
    ("new", "has reported no numbers yet and is left out"),
  ]


def test_gradient_that_is_not_finite_ends_a_run_too():
  metrics = {"train/loss": ([1], [2.0]), "train/grad_norm": ([1], [math.nan])}
  assert states.diverged(Run("a", "a", metrics, {}, "", {}, []))


def test_loss_that_came_back_is_no_divergence():
  assert not states.diverged(_run(steps=[1, 2], losses=[math.nan, 1.0]))
