"""Words, order and comparisons of scores, by their fields."""

import json
import math

import pytest

from gkd.report import metric_info
from tests.report.example_runs import BEAM
from tests.report.example_runs import kl
from tests.report.example_runs import score
from tests.report.example_runs import teacher


def test_bounds_and_other_models_are_no_scores_of_their_own():
  low, high = score().bounds
  found = [score(), low, high, teacher(), teacher().bounds[0], "train/loss"]
  assert metric_info.scores(found) == [score()]


def test_scores_go_group_by_group_with_the_divergences_last():
  found = [make(task=task) for task in "ba" for make in (kl, score)]
  names = [(s.group, s.metric) for s in metric_info.scores(found)]
  assert names == [
    ("a test", "accuracy"),
    ("a test", "forward_kl"),
    ("b test", "accuracy"),
    ("b test", "forward_kl"),
  ]


def sampled(**numbers):
  decoding = json.dumps({"strategy": "sampling", **numbers})
  return score(label="t", decoding=decoding)


BEAM_SCORE = score(label="beam4", decoding=json.dumps(BEAM["decoding"]))


@pytest.mark.parametrize(
  ("described", "title"),
  [
    (kl(), "forward KL (nats per sequence)"),
    (score(), "accuracy (%)"),
    (score(metric="rouge2", unit=""), "rouge2"),
    (sampled(temperature=1.0, top_p=1.0), "accuracy, T = 1 (%)"),
    (sampled(temperature=0.7, top_p=0.9), "accuracy, T = 0.7, top-p 0.9 (%)"),
    (
      sampled(temperature=1, top_k=4, num_samples=8),
      "accuracy, T = 1, top-k 4, 8 samples (%)",
    ),
    (BEAM_SCORE, "accuracy, beam size 4 (%)"),
    (score(label="x", decoding="{}"), "accuracy, x (%)"),
  ],
)
def test_title_has_the_unit_and_the_decoding(described, title):
  assert metric_info.title(described, [described]) == title


def test_title_says_what_tells_scores_apart():
  two = [score(), score(task="other")]
  assert metric_info.title(two[1], two) == "other test accuracy (%)"
  two = [kl("a"), kl("b"), score()]
  assert metric_info.describe(two[1], two) == "forward KL to the teacher b"
  assert metric_info.describe(two[2], two) == "accuracy"


def test_names_of_charts_differ():
  found = [score(), score(split="dev"), kl("a"), kl("b"), BEAM_SCORE]
  assert len({metric_info.slug(one) for one in found}) == len(found)


@pytest.mark.parametrize(
  ("direction", "values", "best"),
  [
    ("max", [1.0, 3.0, math.nan], 3.0),
    ("min", [1.0, 3.0], 1.0),
    ("", [1.0, 3.0], math.nan),
    ("max", [2.0, 2.0], math.nan),
    ("max", [math.inf, 2.0, 1.0], 2.0),
  ],
)
def test_best_value_depends_on_the_direction(direction, values, best):
  found = metric_info.best(direction, values)
  assert found == best or (math.isnan(found) and math.isnan(best))
