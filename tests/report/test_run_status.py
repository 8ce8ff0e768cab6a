"""How far runs are, from their files alone."""

import math

import pytest

from gkd.report import run_status
from tests.report.example_runs import run


def trained(name="a", steps=(10,), losses=(1.0,), planned=None, **fields):
  settings = {"train_steps": planned} if planned else None
  metrics = {"train/loss": (list(steps), list(losses))}
  return run(name, metrics, settings=settings, **fields)


@pytest.mark.parametrize(
  ("planned", "words"),
  [(1000, "1,000"), (2000, "1,000 of 2,000"), (500, "1,000"), (None, "1,000")],
)
def test_updates_are_those_done_of_those_planned(planned, words):
  assert run_status.updates(trained(steps=[1000], planned=planned)) == words
  assert run_status.updates(trained(is_evaluation=True)) == "–"


def test_notes_say_which_runs_are_not_complete():
  found = [
    trained("whole", planned=10),
    trained("evaluation", is_evaluation=True, planned=99),
    trained("sft", planned=40, title="SFT, seed 2"),
    trained("b", [10, 20], [1.0, math.nan], 40),
    trained("c", planned=10, notes=["config.gin is missing"]),
  ]
  assert run_status.notes(found, ["new"]) == [
    (
      "SFT, seed 2",
      "reported 10 of 40 updates (25 %) so far: it was stopped or is still"
      " running",
    ),
    ("b", "stopped at update 20: its loss or gradient was not finite"),
    ("c", "config.gin is missing"),
    ("new", "has reported no numbers yet and is left out"),
  ]


@pytest.mark.parametrize(
  ("loss", "gradient", "expected"),
  [
    ([2.0, 1.0], [1.0, math.nan], True),
    ([2.0, math.nan], [1.0, 1.0], True),
    ([math.nan, 1.0], [1.0, 1.0], False),  # it came back
  ],
)
def test_loss_or_gradient_that_ends_not_finite_is_divergence(
  loss, gradient, expected
):
  metrics = {"train/loss": loss, "train/grad_norm": gradient}
  assert run_status.diverged(run("a", metrics)) is expected
