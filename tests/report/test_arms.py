"""Runs that differ in the seed alone are one arm; names tell runs apart."""

import pytest

from gkd.report import arms
from tests.report.example_runs import run


def seeded(
  name, seed, student="/r/first", teacher="a", data="b", text=(), **settings
):
  found = {"seed": seed, "rate": 0.1, "model_dir": f"/r/{name}", **settings}
  first = {"path": student, "content_sha256": f"{seed}" * 64}
  roles = {
    "student": {"initial": first},
    "teacher": {"path": "/r/teacher", "content_sha256": teacher * 64},
  }
  about = {
    "settings": found,
    "roles": roles,
    "contents": {"training_data": data * 64},
    "training_text": {name: {"written_by": {"seed": seed}} for name in text},
  }
  return run(name, {"train/loss": [1.0]}, about=about, arm="", title="")


def named(runs):
  return [(found.arm, found.title) for found in arms.assign(runs)]


def test_seeds_of_a_configuration_are_an_arm():
  runs = [
    seeded(f"seed_{seed}/{arm}", seed, student=f"/r/seed_{seed}/sft", loss=arm)
    for seed in (0, 1)
    for arm in ("kd", "gkd")
  ]
  assert named(runs) == [
    ("kd", "kd, seed 0"),
    ("gkd", "gkd, seed 0"),
    ("kd", "kd, seed 1"),
    ("gkd", "gkd, seed 1"),
  ]


def test_seeds_may_train_on_texts_that_a_model_wrote_for_each():
  pair = [
    seeded(f"seed_{seed}/kd", seed, data=f"{seed}", text=[f"{seed}-answers"])
    for seed in (0, 1)
  ]
  assert [arm for arm, _ in named(pair)] == ["kd", "kd"]


def test_seeds_beside_each_other_are_called_by_what_they_share():
  assert named([seeded("kd-1", 1), seeded("kd-2", 2)]) == [
    ("kd", "kd, seed 1"),
    ("kd", "kd, seed 2"),
  ]


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
    run("seed_1/kd", {"train/loss": [1.0]}),  # without settings
  ],
)
def test_other_runs_are_arms_of_their_own(second):
  runs = [seeded("seed_0/kd", 0), second]
  assert [arm for arm, _ in named(runs)] == [r.name for r in runs]


def test_run_in_a_folder_called_student_is_called_student():
  assert named([run("student", {"train/loss": [1.0]})]) == [
    ("student", "student")
  ]


def test_labels_name_and_order_the_arms():
  labels = {"sft": "Start", "gkd": "On-policy GKD"}
  runs = [run(name, {}, labels=labels) for name in ("gkd", "other", "sft")]
  assert [arm for arm, _ in named(runs)] == ["Start", "On-policy GKD", "other"]


def test_arms_keep_their_order_and_runs():
  runs = [run(name, arm=name[0]) for name in ("b1", "a1", "b2")]
  found = arms.by_arm(runs)
  assert [(k, len(v)) for k, v in found.items()] == [("b", 2), ("a", 1)]


@pytest.mark.parametrize(
  ("paths", "names"),
  [
    (["/r/a", "/r/b"], ["a", "b"]),
    (["/r/1/a", "/r/2/b"], ["1/a", "2/b"]),
    (["/r/a", "/r/a/eval"], ["a", "a/eval"]),
  ],
)
def test_names_are_paths_below_a_common_folder(paths, names):
  assert arms.short_names(paths) == names
