"""Curves over passes through the data."""

import dataclasses

from gkd.report import epochs
from tests.report.example_runs import kl
from tests.report.example_runs import run

NEAR, FAR = kl(), kl("truth", compared_with="oracle")


def trained(name, num_rows, metrics=(NEAR, FAR, "train/loss"), **data):
  about = {"num_rows": num_rows, "settings": {"data": {"batch_size": 4} | data}}
  curves = {metric: {0: 2.0, 10: 1.0} for metric in metrics}
  return run(name, curves, about=about)


def test_loss_and_both_distances_are_side_by_side_over_epochs():
  runs = [trained("a", 20), trained("b", 5), trained("old", None)]
  sft = trained("sft", 20, ["train/loss", FAR])
  several = trained("several", 5, samples_per_prompt=2)
  panels = list(epochs.charts([*runs, sft, several]))
  assert [panel.title for panel in panels] == [
    "Training loss",
    "Forward KL to the teacher",
    "Forward KL to the oracle",
  ]
  for panel in panels:
    found = [(line.name, line.colour, list(line.xs)) for line in panel.series]
    expected = [("a", 0, [0, 2]), ("b", 1, [0, 8]), ("several", 4, [0, 4])]
    assert found == expected
    assert panel.x_label == "passes over the data"


def test_a_model_that_several_teachers_share_has_one_panel():
  runs = [trained(x, 20, [kl(x), FAR]) for x in ("a", "b")]
  assert [panel.title for panel in epochs.charts(runs)] == [
    "Forward KL to the teacher a",
    "Forward KL to the oracle",
    "Forward KL to the teacher b",
  ]


def test_panels_of_many_arms_are_divided_by_an_axis():
  runs = [trained(f"{n}", 20) for n in range(8)]
  runs = [
    dataclasses.replace(one, axes={"size": n % 2}) for n, one in enumerate(runs)
  ]
  loss, other, *_ = epochs.charts(runs)
  assert loss.title == "Training loss, size 0"
  shown = [line.name for line in other.series if not line.is_context]
  assert shown == ["1", "3", "5", "7"]


def test_without_a_third_model_there_are_none():
  assert not list(epochs.charts([trained("a", 20, [NEAR, "train/loss"])]))
