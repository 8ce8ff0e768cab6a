"""Sums of objectives: each term has its own model, weight and metrics."""

import jax
import numpy as np
import pytest

from gkd import masks
from gkd.losses import divergence
from gkd.losses.objective import CrossEntropy
from gkd.losses.objective import Distillation
from gkd.losses.objective import Scored
from gkd.losses.weighted_sum import Term
from gkd.losses.weighted_sum import WeightedSum
from gkd.types import UserError
from tests.losses import test_objective as cases

FORWARD = Distillation(divergence.ForwardKL())
ANCHORED = Distillation(divergence.ReverseKL(), role="anchor")


def measure(objective, roles):
  batch = cases.make_batch()
  logits, *others = (
    cases.make_logits(batch, seed)[seed > 0] for seed in range(3)
  )
  frozen = dict(zip(("teacher", "anchor"), others, strict=True))

  def loss(student):
    scored = {role: Scored(frozen[role], lambda x: x) for role in roles}
    coefficients = objective.coefficients(batch, "sequence")
    student = Scored(student, lambda x: x)
    return objective(student, scored, batch, coefficients, cases.REAL)

  return jax.value_and_grad(loss, has_aux=True)(logits)


def test_loss_gradient_and_metrics_are_the_weighted_ones_of_the_terms():
  terms = Term("first", 0.5, FORWARD), Term("second", 2.0, ANCHORED)
  objective = WeightedSum(terms)
  assert objective.roles == ("teacher", "anchor")
  (loss, metrics), gradient = measure(objective, objective.roles)
  alone = [measure(term.objective, term.objective.roles) for term in terms]
  expected = [
    0.5 * np.float64(a) + 2.0 * np.float64(b)
    for a, b in ([one[0][0] for one in alone], [one[1] for one in alone])
  ]
  np.testing.assert_allclose(loss, expected[0], rtol=1e-6)
  np.testing.assert_allclose(gradient, expected[1], atol=1e-7)
  for prefix, ((_, found), _) in zip(("", "second/"), alone, strict=True):
    for name, mean in found.items():
      np.testing.assert_equal(metrics[prefix + name].compute(), mean.compute())


def test_what_is_compared_with_no_teacher_has_the_name_of_its_term():
  anchored = WeightedSum((Term("anchor", 1.0, ANCHORED),))
  (_, metrics), _ = measure(anchored, anchored.roles)
  assert "anchor/forward_kl" in metrics
  assert "forward_kl" not in metrics


def test_a_term_of_weight_0_is_not_computed_and_1_alone_is_the_term_itself():
  objective = WeightedSum((Term("a", 1.0, FORWARD), Term("b", 0.0, ANCHORED)))
  assert objective.roles == ("teacher",)
  (loss, _), gradient = measure(objective, objective.roles)
  (alone, _), expected = measure(FORWARD, FORWARD.roles)
  assert loss == alone
  np.testing.assert_array_equal(gradient, expected)


def test_terms_have_coefficients_of_their_own():
  class Tokens(CrossEntropy):
    def coefficients(self, batch, reduction):
      return masks.coefficients(batch.weights, "token")

  batch = cases.make_batch()
  terms = Term("a", 1.0, FORWARD), Term("b", 1.0, Tokens())
  found = WeightedSum(terms).coefficients(batch, "sequence")
  for name, reduction in (("a", "sequence"), ("b", "token")):
    expected = masks.coefficients(batch.weights, reduction)
    np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize(
  "terms",
  [
    (),
    (Term("a", 0.0, FORWARD),),
    (Term("a", 1.0, FORWARD), Term("a", 1.0, ANCHORED)),
  ],
)
def test_terms_that_make_no_sum_are_refused(terms):
  with pytest.raises(UserError, match="terms of the objective are"):
    WeightedSum(terms)
  with pytest.raises(UserError, match="weight of a is -1"):
    Term("a", -1, FORWARD)
