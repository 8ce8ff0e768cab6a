"""Distances between models of any two roles, on models known by hand."""

import numpy as np
import pytest

from gkd.evaluation import comparisons
from gkd.evaluation import evaluate
from gkd.evaluation import job
from gkd.types import Model
from tests.evaluation import table_model
from tests.evaluation.table_model import kl
from tests.evaluation.table_model import make_evaluation
from tests.evaluation.table_model import make_params
from tests.evaluation.table_model import softmax

PARAMS = {"student": make_params(0), "teacher": make_params(1)}
PARAMS["judge"] = make_params(2)


def run(*roles, evaluation, step=0):
  models = {role: Model(table_model.MODEL, PARAMS[role]) for role in roles}
  return evaluate.evaluate(evaluation, models, seed=0, step=step)


def test_student_and_teacher_are_compared_with_every_other_model():
  evaluation = make_evaluation(distances=("forward_kl", "reverse_kl"))
  values = run("student", "teacher", "judge", evaluation=evaluation)
  tables = {
    role: softmax(np.asarray(params["table"], np.float64))
    for role, params in PARAMS.items()
  }
  for p, q, names in (
    ("teacher", "student", ("forward_kl", "reverse_kl")),
    ("judge", "student", ("forward_kl_to_judge", "reverse_kl_to_judge")),
    (
      *("judge", "teacher"),
      ("teacher_forward_kl_to_judge", "teacher_reverse_kl_to_judge"),
    ),
  ):
    forward, reverse = (values[f"eval/toy/{name}"] for name in names)
    assert forward == pytest.approx(kl(tables[p], tables[q]), rel=1e-5)
    assert reverse == pytest.approx(kl(tables[q], tables[p]), rel=1e-5)
    own = names[0].replace("forward_kl", "agreement_on_own_text")
    equal = tables[p].argmax(-1) == tables[q].argmax(-1)
    for name in (own, own.replace("own", p)):
      assert values[f"eval/toy/{name}"] == pytest.approx(equal.mean())
      accepted = name.replace("agreement", "acceptance")
      overlap = np.minimum(tables[p], tables[q]).sum(-1)
      assert values[f"eval/toy/{accepted}"] == pytest.approx(overlap.mean())
  pairs = comparisons.comparisons(["student", "judge"])
  assert pairs == [("student", "judge")]


def test_a_model_writes_once_for_all_comparisons_and_a_frozen_one_once_a_run(
  monkeypatch,
):
  writers = []
  generate = job.Job.generate

  def counting(self, role, draw, *args, **options):
    writers.append((role, draw))
    return generate(self, role, draw, *args, **options)

  monkeypatch.setattr(job.Job, "generate", counting)
  evaluation = make_evaluation(distances=("jsd_0.5",))
  first = run("student", "teacher", "judge", evaluation=evaluation)
  answers, student = ("student", 0), ("student", 1 << 20)
  # The judge's number is that of its name in all versions.
  frozen = [("teacher", (1 << 20) + 1), ("judge", (1 << 22) + 0x11FBC314)]
  assert writers == [answers, frozen[0], student, frozen[1]]
  expected = {"jsd_0.5", "jsd_0.5_to_judge", "teacher_jsd_0.5_to_judge"}
  expected |= {"jsd_0.5_per_token_to_judge_se"}
  assert {f"eval/toy/{name}" for name in expected} <= first.keys()
  del writers[:]
  second = run("student", "teacher", "judge", evaluation=evaluation, step=1)
  assert writers == [answers, student]
  name = "eval/toy/teacher_jsd_0.5_to_judge"
  assert second[name] == first[name]
