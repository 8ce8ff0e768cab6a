"""What the name of a metric says about it."""

import pytest

from gkd.report import measures

TOY = "eval/toy/"


def test_bounds_and_the_teachers_scores_are_no_metrics_of_their_own():
  found = {
    "train/loss",
    "train/teacher_entropy",
    f"{TOY}accuracy_t1",
    f"{TOY}accuracy_t1_ci_low",
    f"{TOY}accuracy_t1_ci_high",
    f"{TOY}teacher_accuracy_t1",
    f"{TOY}teacher_accuracy_t1_ci_low",
    f"{TOY}teacher_accuracy_t1_ci_high",
    f"{TOY}teacher_only",  # the student has none
  }
  assert measures.own(found) == [
    f"{TOY}accuracy_t1",
    f"{TOY}teacher_only",
    "train/loss",
    "train/teacher_entropy",
  ]
  low, high = measures.bounds(f"{TOY}accuracy_t1")
  assert {low, high, measures.of_teacher(f"{TOY}accuracy_t1")} < found


def test_headlines_go_task_by_task_with_the_distances_last():
  found = [
    f"eval/{task}/{metric}"
    for task in ("b-test", "a-test")
    for metric in (
      "forward_kl",
      "forward_kl_per_token",
      "rouge2",
      "length_t1",
      "truncation_rate",
    )
  ]
  names = measures.headlines(found)
  assert names == [
    "eval/a-test/rouge2",
    "eval/a-test/forward_kl",
    "eval/b-test/rouge2",
    "eval/b-test/forward_kl",
  ]
  assert measures.tasks(names) == ["a-test", "b-test"]


@pytest.mark.parametrize(
  ("name", "title"),
  [
    (f"{TOY}forward_kl", "forward KL (nats a sequence)"),
    (f"{TOY}forward_kl_per_token", "forward KL per token (nats a token)"),
    (f"{TOY}accuracy_t1", "accuracy, T = 1 (%)"),
    (f"{TOY}accuracy_beam4", "accuracy beam4 (%)"),
    (f"{TOY}majority_accuracy_t0.7", "majority accuracy, T = 0.7 (%)"),
    (f"{TOY}teacher_accuracy", "teacher's accuracy (%)"),
    (f"{TOY}rouge2", "rouge2"),
  ],
)
def test_title_has_the_unit_and_the_temperature(name, title):
  assert measures.title(name, [name]) == title


def test_title_has_the_task_only_where_it_tells_apart():
  two = ["eval/toy/accuracy", "eval/other/accuracy"]
  assert measures.title(two[1], two) == "other accuracy (%)"


@pytest.mark.parametrize(
  ("name", "better"),
  [
    ("eval/sum_of_losses/accuracy", 1),
    ("eval/tokens/forward_kl", -1),
    ("eval/toy/length", 0),
    ("train_seconds", 0),
    ("reverse_kl", -1),
  ],
)
def test_what_is_better_depends_on_the_metric_and_not_on_the_task(name, better):
  assert measures.better(name) == better
