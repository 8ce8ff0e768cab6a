"""Words, order and comparisons of scores, by their fields."""

import json
import math

import pytest

from gkd.report import metric_info
from gkd.report.metric_info import Score
from tests.report.example_runs import BEAM
from tests.report.example_runs import KL
from tests.report.example_runs import kl
from tests.report.example_runs import score
from tests.report.example_runs import teacher


def test_bounds_and_other_models_are_no_scores_of_their_own():
  metrics = [score(), *score().bounds, teacher(), *teacher().bounds, "train/x"]
  assert metric_info.scores(metrics) == [score()]


def test_scores_go_group_by_group_with_the_divergences_last():
  metrics = [make(task=task) for task in "ba" for make in (kl, score)]
  assert metric_info.scores(metrics) == [
    score(task="a"),
    kl(task="a"),
    score(task="b"),
    kl(task="b"),
  ]


def decoded(label, **decoding):
  return score(label=label, decoding=json.dumps(decoding))


BEAM_SCORE = decoded("beam4", **BEAM["decoding"])


@pytest.mark.parametrize(
  ("described", "title"),
  [
    (kl(), "forward KL (nats per sequence)"),
    (score(), "accuracy (%)"),
    (score(metric="rouge2", unit=""), "rouge2"),
    (decoded("t", temperature=1.0, top_p=1.0), "accuracy, T = 1 (%)"),
    (
      decoded("t", temperature=0.7, top_p=0.9),
      "accuracy, T = 0.7, top-p 0.9 (%)",
    ),
    (
      decoded("t", temperature=1, top_k=4, num_samples=8),
      "accuracy, T = 1, top-k 4, 8 samples (%)",
    ),
    (BEAM_SCORE, "accuracy, beam size 4 (%)"),
    (decoded("x"), "accuracy, x (%)"),
    (Score(metric="eval/toy/bleu_t1"), "eval/toy/bleu_t1"),  # not described
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


def test_a_distance_to_another_role_than_the_teacher_is_named():
  beside = [kl("a"), kl("b", compared_with="judge"), kl("c", metric="jsd_0.5")]
  names = [metric_info.describe(each, beside[:2]) for each in beside]
  assert names == ["forward KL", "forward KL to the judge", "JSD 0.5"]


def test_what_stands_beside_a_value_is_a_part_of_it():
  """And a distance knows both models, of which neither may be the student."""
  distance = KL | {"task": "toy", "compared_with": "judge", "role": "teacher"}
  name = "eval/toy/teacher_forward_kl_to_judge"
  roles = {"teacher": {"content_sha256": "1" * 64}, "judge": {}}
  names = (name, f"{name}_ci_low", f"{name}_se")
  curves = {key: {0: 1.0} for key in names}
  about = {"roles": roles}
  found = metric_info.structured(curves, {name: distance}, about, "r")
  assert [part.bound for part in found] == ["", "low", "error"]
  assert {(x.model, x.owner) for x in found} == {("of r", "11111111")}
  assert metric_info.scores(found) == []


def test_names_of_charts_differ():
  scores = [score(), score(split="dev"), kl("a"), kl("b"), BEAM_SCORE]
  scores += [kl("a", compared_with="judge")]
  assert len(set(map(metric_info.slug, scores))) == len(scores)


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
  assert found == pytest.approx(best, nan_ok=True)
