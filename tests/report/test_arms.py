"""Runs that differ in the seed alone are one arm; names tell runs apart."""

import dataclasses
import math

import pytest

from gkd.report import arms
from tests.report.example_runs import kl
from tests.report.example_runs import run

LOSS = {"train/loss": [1.0]}


def seeded(
  name,
  seed,
  student="/r/first",
  teacher="a",
  data="b",
  text=(),
  teacher_path="/r/teacher",
  **settings,
):
  first = {"path": student, "content_sha256": f"{seed}" * 64}
  about = {
    "settings": {"seed": seed, "rate": 0.1, "model_dir": f"/r/{name}"}
    | settings,
    "roles": {
      "student": {"initial": first},
      "teacher": {"path": teacher_path, "content_sha256": teacher * 64},
    },
    "contents": {"training_data": data * 64},
    "training_text": {name: {"written_by": {"seed": seed}} for name in text},
  }
  return run(name, LOSS, about=about, arm="", title="")


@pytest.mark.parametrize(
  ("runs", "names"),
  [
    (
      [
        seeded(f"seed_{n}/{arm}", n, student=f"/r/seed_{n}/sft", loss=arm)
        for n in (0, 1)
        for arm in ("kd", "gkd")
      ],
      ["kd, seed 0", "gkd, seed 0", "kd, seed 1", "gkd, seed 1"],
    ),
    # They may train on texts that a model wrote for each.
    (
      [
        seeded(f"seed_{n}/kd", n, data=f"{n}", text=[f"{n}-answers"])
        for n in (0, 1)
      ],
      ["kd, seed 0", "kd, seed 1"],
    ),
    # And be taught by a model that was made for each.
    (
      [
        seeded(f"seed_{n}/kd", n, teacher=f"{n}", teacher_path=f"/r/seed_{n}/t")
        for n in (0, 1)
      ],
      ["kd, seed 0", "kd, seed 1"],
    ),
    # Beside each other they are called by what they share.
    ([seeded(f"kd-{n}", n) for n in (1, 2)], ["kd, seed 1", "kd, seed 2"]),
  ],
)
def test_seeds_of_a_configuration_are_an_arm(runs, names):
  assigned = arms.assign(runs)
  assert [found.title for found in assigned] == names
  assert [found.arm for found in assigned] == [n.split(",")[0] for n in names]


@pytest.mark.parametrize(
  "second",
  [
    seeded("seed_1/kd", 1, rate=0.2),  # another setting
    seeded("seed_1/kd", 0),  # the same seed again
    seeded("seed_1/kd", 1, student="/r/other"),  # another first student
    seeded("seed_1/kd", 1, teacher="c"),  # another teacher at the same path
    seeded("seed_1/kd", 1, data="c"),  # other data under the same name
    seeded("seed_1/kd", 1, text=["answers"]),  # texts that a model wrote
    seeded("seed_1/other", 1),  # two folders differ
    run("seed_1/kd", LOSS),  # without settings
    run("student", LOSS),
  ],
)
def test_other_runs_are_arms_of_their_own(second):
  assigned = arms.assign([seeded("seed_0/kd", 0), second])
  names = ["seed_0/kd", second.name]
  assert [(one.arm, one.title) for one in assigned] == [(n, n) for n in names]


def test_labels_name_and_order_the_arms():
  labels = {"sft": "Start", "gkd": "On-policy GKD"}
  runs = [run(name, labels=labels) for name in ("gkd", "other", "sft")]
  names = [found.arm for found in arms.assign(runs)]
  assert names == ["Start", "On-policy GKD", "other"]


def test_arms_keep_their_order_and_runs():
  runs = [run(name, arm=name[0]) for name in ("b1", "a1", "b2")]
  sizes = [(arm.name, len(arm.runs)) for arm in arms.by_arm(runs)]
  assert sizes == [("b", 2), ("a", 1)]


@pytest.mark.parametrize(
  ("loss", "gradient", "parameters", "expected"),
  [
    ([2.0, 1.0], [1.0, math.nan], [1.0, 1.0], True),
    ([2.0, math.nan], [1.0, 1.0], [1.0, 1.0], True),
    ([2.0, 1.0], [1.0, 1.0], [1.0, math.inf], True),
    ([math.nan, 1.0], [1.0, 1.0], [1.0, 1.0], False),  # it came back
  ],
)
def test_a_run_that_ends_not_finite_has_diverged(
  loss, gradient, parameters, expected
):
  metrics = {
    "train/loss": loss,
    "train/grad_norm": gradient,
    "train/param_norm": parameters,
  }
  assert run("a", metrics).has_diverged is expected


def test_models_that_each_seed_makes_are_of_one_role():
  """Those of one arm, but not where an arm mixes them, or of one seed alone."""

  def runs(*teachers, stage="kd"):
    return [
      run(
        f"seed_{place}/{stage}",
        {kl(teacher): [1.0], kl("truth", compared_with="oracle"): [1.0]},
        settings={"seed": place, "rate": 1},
      )
      for place, teacher in enumerate(teachers)
    ]

  def models(found):
    return {score.model for one in found for score in one.metrics}

  assert models(arms.assign(runs("a", "b"))) == {"of the seed", "truth"}
  assert models(arms.assign(runs("a", "a"))) == {"a", "truth"}
  more = runs("c", "d", stage="kd_small")
  both = {"of the seed", "of the seed, kd_small", "truth"}
  assert models(arms.assign([*runs("a", "b"), *more])) == both
  mixed = runs("c", "b", stage="kd_small")
  assert models(arms.assign([*runs("a", "b"), *mixed])) == {*"abc", "truth"}
  other = run("seed_0/sft", {kl("c"): [1.0]}, settings={"seed": 0, "rate": 2})
  alone = {"of the seed", "c", "truth"}
  assert models(arms.assign([*runs("a", "b"), other])) == alone
  second = runs("a", "b")[1]
  apart = dataclasses.replace(second, about={"settings": {"seed": 1}})
  assert models(arms.assign([runs("a")[0], apart])) == {*"ab", "truth"}
