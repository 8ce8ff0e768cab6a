"""Checks for parts of one's own, to call in one's own tests.

from gkd.testing import check_divergence

def test_hellinger():
check_divergence(Hellinger())
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gkd.types import Array

_ROWS, _IDS, _PADDED = 16, 7, 3
_WHERE = (
  "; guard what is not finite at log-probability -inf by jnp.where inside as"
  " well as outside, and mix by gkd.losses.divergence.log_mixture"
)


def check_divergence(
  divergence: Callable[[Array, Array], Array],
  *,
  finite_differences: bool = True,
) -> None:
  """Checks what training relies on; takes a second.

  Value and gradient are finite with padded ids, which are -inf on both sides,
  and at extreme logits; padded ids change nothing; values are not negative, 0
  for equal models, and one for each position; the gradient with respect to
  student logits is that of the value.

  Args:
    divergence: from log-probabilities of teacher and student [..., V] to
      values [...].
    finite_differences: False where a `stop_gradient` makes the gradient another
      one than that of the value.

  Raises:
    AssertionError: with what to do about it.
  """

  def value(student, teacher):
    return divergence(jax.nn.log_softmax(teacher), jax.nn.log_softmax(student))

  @jax.jit
  def measure(teacher, student):
    gradient = jax.grad(lambda s: jnp.sum(value(s, teacher)))(student)
    return value(student, teacher), gradient

  teacher, student = np.random.RandomState(0).randn(2, _ROWS, _IDS)
  teacher, student = teacher.astype("float32"), student.astype("float32")
  shape = jax.eval_shape(value, student, teacher).shape
  assert shape == (_ROWS,), (
    f"of log-probabilities {student.shape} it makes values {shape}, expected"
    f" {(_ROWS,)}; sum over the last axis, and over that alone"
  )
  values, gradient = measure(teacher, student)
  padded = _check_finite(measure, teacher, student)
  np.testing.assert_allclose(
    padded, values, 1e-4, 1e-6, err_msg="padded ids change the value; mask them"
  )
  np.testing.assert_allclose(
    measure(teacher, teacher)[0], 0, atol=1e-6, err_msg="not 0 for equal models"
  )
  if finite_differences:
    slopes = _finite_differences(value, teacher, student)
    np.testing.assert_allclose(
      gradient,
      slopes,
      rtol=1e-2,
      atol=1e-3,
      err_msg="the gradient is not that of the value; with a stop_gradient on"
      " purpose give finite_differences=False",
    )


def _check_finite(
  measure: Callable[..., tuple[Array, Array]], *logits: np.ndarray
) -> Array:
  """Values with padded ids, which are finite and not negative."""
  fill = ((0, 0), (0, _PADDED))
  wide = [np.pad(x, fill, constant_values=-np.inf) for x in logits]
  extreme = [np.float32(100) * x for x in wide]
  for about, pair in (
    ("with padded ids", wide),
    ("for a student more certain than its teacher", [wide[0], 2 * wide[0]]),
    ("at logits of some 100", extreme),
    ("at logits of some 100 and equal models", [extreme[0]] * 2),
  ):
    found, slope = measure(*pair)
    assert np.isfinite(found).all(), f"{about} the value is {found}{_WHERE}"
    assert np.isfinite(slope).all(), (
      f"{about} the value is finite, its gradient is not{_WHERE}"
    )
    assert np.min(found) >= -1e-6, (
      f"{about} the value is {np.min(found)}, below 0; look at the order of the"
      " arguments, and sum over all ids: a part of them may go below 0"
    )
  return measure(*wide)[0]


def _finite_differences(
  value: Callable[[Array, Array], Array],
  teacher: np.ndarray,
  student: np.ndarray,
) -> np.ndarray:
  """Gradient [rows, ids] with respect to student logits."""
  step = np.float32(1e-2)
  shifts = step * np.eye(_IDS, dtype="float32")[:, None]
  up, down = (
    jax.vmap(value, (0, None))(student + x, teacher) for x in (shifts, -shifts)
  )
  return np.transpose((up - down) / (2 * step))
