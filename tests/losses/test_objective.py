"""Objectives: what is trained, how it is reduced, what is reported."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import masks
from gkd import metrics
from gkd.losses import divergence
from gkd.losses import likelihood
from gkd.losses.objective import CrossEntropy
from gkd.losses.objective import Distillation
from gkd.losses.objective import Scored
from gkd.types import Batch
from gkd.types import Pair
from gkd.types import UserError
from tests.losses.test_divergence import numpy_kl
from tests.tiny import log_softmax

REAL = 9  # real ids; the tables are padded to 11 and 13 rows
STUDENT_ROWS, TEACHER_ROWS = 11, 13
LENGTHS = (5, 3, 0, 1)  # tokens of each row, the last of which is EOS
KLS = {"forward_kl", "reverse_kl", "agreement", "teacher_entropy"}


def make_batch(lengths=LENGTHS, width=6, seed=0):
  rng = np.random.RandomState(seed)
  targets = np.zeros((len(lengths), width), np.int32)
  weights = np.zeros((len(lengths), width), np.float32)
  for row, length in enumerate(lengths):
    if length:
      targets[row, :length] = rng.randint(2, REAL, length)
      targets[row, length - 1] = 1
      weights[row, :length] = 1
  return Batch(
    inputs=jnp.ones((len(lengths), 2), jnp.int32),
    input_mask=jnp.ones((len(lengths), 2), bool),
    targets=jnp.asarray(targets),
    weights=jnp.asarray(weights),
    rows=jnp.arange(len(lengths)),
    source=jnp.array([0, 1, 2, 1][: len(lengths)]),
  )


def make_logits(batch, seed=0):
  rng = np.random.RandomState(seed)
  student = rng.randn(*batch.targets.shape, STUDENT_ROWS).astype(np.float32)
  teacher = rng.randn(*batch.targets.shape, TEACHER_ROWS).astype(np.float32)
  return student, teacher


@functools.partial(jax.jit, static_argnums=0)
def measure(objective, student, teacher, batch, coefficients):
  """((loss, metrics), gradient by student logits): heads do nothing."""

  def loss(student):
    return objective(
      Scored(student, lambda hidden: hidden),
      {} if teacher is None else {"teacher": Scored(teacher, lambda x: x)},
      batch,
      coefficients,
      vocabulary_size=REAL,
    )

  return jax.value_and_grad(loss, has_aux=True)(student)


@functools.partial(jax.jit, static_argnums=1)
def coefficients_of(batch, reduction):
  segments = batch.segments.targets if batch.segments else None
  return masks.coefficients(batch.weights, reduction, segments)


def score(objective, batch, student, teacher, reduction="sequence"):
  """Loss and metrics."""
  return _measure(objective, batch, student, teacher, reduction)[0]


def train(objective, batch, student, teacher, reduction="sequence"):
  """Loss and gradient."""
  measured = _measure(objective, batch, student, teacher, reduction)
  (loss, _), gradient = measured
  return loss, np.asarray(gradient)


def _measure(objective, batch, student, teacher, reduction):
  coefficients = coefficients_of(batch, reduction)
  alike = dataclasses.replace(batch, segments=None)  # one compilation
  return measure(objective, student, teacher, alike, coefficients)


def numpy_mean_of_rows(values, lengths=LENGTHS):
  """The paper's mean over tokens, then over the sequences that have any."""
  return np.mean([values[i, :n].mean() for i, n in enumerate(lengths) if n])


OBJECTIVES = {
  "reverse": Distillation(divergence.ReverseKL()),
  "jsd": Distillation(divergence.GeneralizedJSD(0.1), teacher_temperature=0.5),
  "chunked": Distillation(divergence.ForwardKL(), chunk_size=4),
  "cross_entropy": CrossEntropy(z_loss=1e-2, label_smoothing=0.1),
}
objectives = pytest.mark.parametrize("name", OBJECTIVES)
reductions = pytest.mark.parametrize("reduction", ["sequence", "token", "sum"])


def test_distillation_loss_equals_numpy_with_both_temperatures():
  batch = make_batch()
  student, teacher = make_logits(batch)
  objective = Distillation(divergence.ReverseKL(), 0.25, 2.0)
  loss, _ = score(objective, batch, student, teacher)
  log_p = log_softmax(teacher[..., :REAL].astype(np.float64) / 0.25)
  log_q = log_softmax(student[..., :REAL].astype(np.float64) / 2.0)
  values = (np.exp(log_q) * (log_q - log_p)).sum(axis=-1)
  np.testing.assert_allclose(loss, numpy_mean_of_rows(values), rtol=1e-5)


def test_text_of_the_student_has_its_own_divergence_and_weight():
  batch = make_batch()
  student, teacher = make_logits(batch)
  # Forward KL is infinite where it does not count, on the student's rows.
  student[np.asarray(batch.source) == 1, :, 4] = -np.inf
  student[0, :, 4] = teacher[0, :, 4] = -np.inf
  objective = Distillation(
    divergence.ForwardKL(),
    student_divergence=divergence.ReverseKL(),
    student_weight=1.5,
  )
  (loss, _), gradient = _measure(objective, batch, student, teacher, "sequence")
  log_p, log_q = (
    log_softmax(x[..., :REAL].astype(np.float64)) for x in (teacher, student)
  )
  own = (np.asarray(batch.source) == 1)[:, None]
  values = np.where(
    own, 1.5 * numpy_kl(log_q, log_p), 0.5 * numpy_kl(log_p, log_q)
  )
  np.testing.assert_allclose(loss, numpy_mean_of_rows(values), rtol=1e-5)
  assert np.isfinite(gradient).all()


def test_cross_entropy_runs_over_all_rows_of_the_table():
  batch = make_batch()
  student, _ = make_logits(batch)
  loss, _ = score(CrossEntropy(), batch, student, None)
  log_q = log_softmax(student)
  values = -np.take_along_axis(log_q, batch.targets[..., None], -1)[..., 0]
  np.testing.assert_allclose(loss, numpy_mean_of_rows(values), rtol=1e-5)


@objectives
@reductions
def test_exactly_the_counted_positions_are_trained(name, reduction):
  """First token and EOS included, padding and empty rows not."""
  batch = make_batch()
  student, teacher = make_logits(batch)
  _, gradient = train(OBJECTIVES[name], batch, student, teacher, reduction)
  trained = np.abs(gradient).max(axis=-1) > 1e-6
  np.testing.assert_array_equal(trained, np.asarray(batch.weights) > 0)


def test_a_student_that_knows_each_target_has_no_loss_and_a_late_one_does():
  batch = make_batch()
  knows = 50.0 * jax.nn.one_hot(batch.targets, STUDENT_ROWS)
  late = 50.0 * jax.nn.one_hot(
    masks.shift_right(batch.targets, 0), STUDENT_ROWS
  )
  assert score(CrossEntropy(), batch, knows, None)[0] < 1e-6
  assert score(CrossEntropy(), batch, late, None)[0] > 30
  _, measured = score(CrossEntropy(), batch, knows, None)
  assert measured["token_accuracy"].compute() == 1


@objectives
def test_padded_ids_get_no_gradient_from_distillation(name):
  batch = make_batch()
  student, teacher = make_logits(batch)
  _, gradient = train(OBJECTIVES[name], batch, student, teacher)
  padded = np.abs(gradient[..., REAL:]).max()
  assert (padded == 0) == (name != "cross_entropy")


@objectives
@reductions
def test_padding_changes_neither_loss_nor_gradient(name, reduction):
  batch = make_batch()
  student, teacher = make_logits(batch)
  wide = make_batch((*LENGTHS, 0), width=9)
  wide = dataclasses.replace(
    wide,
    targets=wide.targets.at[:4, :6].set(batch.targets),
    source=jnp.array([0, 1, 2, 1, 0]),
  )
  pads = [(0, 1), (0, 3), (0, 0)]
  student_wide, teacher_wide = (np.pad(x, pads) for x in (student, teacher))
  objective = OBJECTIVES[name]
  loss, gradient = train(objective, batch, student, teacher, reduction)
  loss_wide, gradient_wide = train(
    objective, wide, student_wide, teacher_wide, reduction
  )
  np.testing.assert_allclose(loss_wide, loss, rtol=1e-6)
  np.testing.assert_allclose(gradient_wide[:4, :6], gradient, atol=1e-7)
  assert not gradient_wide[4:].any()
  assert not gradient_wide[:, 6:].any()


@objectives
@reductions
def test_parts_of_a_batch_add_up_to_the_whole(name, reduction):
  batch = make_batch()
  student, teacher = make_logits(batch)
  everything = jax.tree.map(
    np.asarray,
    (student, teacher, batch, coefficients_of(batch, reduction)),
  )

  def part(rows):
    chosen = jax.tree.map(lambda x: x[rows], everything)
    return measure(OBJECTIVES[name], *chosen)

  (whole, whole_metrics), gradient = part(slice(None))
  # Unequal parts: a long and an empty row in the first.
  first, second = [0, 2], [1, 3]
  parts = [part(np.array(rows)) for rows in (first, second)]
  np.testing.assert_allclose(
    sum(loss for (loss, _), _ in parts), whole, rtol=1e-6
  )
  np.testing.assert_allclose(
    np.concatenate([gradient for _, gradient in parts]),
    gradient[jnp.array(first + second)],
    atol=1e-7,
  )
  merged = metrics.merge(part_metrics for (_, part_metrics), _ in parts)
  assert merged.keys() == whole_metrics.keys()
  for key, mean in merged.items():
    np.testing.assert_allclose(
      mean.compute(), whole_metrics[key].compute(), rtol=1e-5, err_msg=key
    )


@objectives
def test_packed_rows_equal_the_same_rows_apart(name):
  batch = make_batch((4, 2, 3, 0))
  student, teacher = make_logits(batch)

  def pack(array):
    """The first 4 and the 2 tokens share row 0; row 1 becomes empty."""
    array = np.array(array)
    array[0, 4:] = array[1, :2]
    array[1] = 0
    return array

  segments = np.array(batch.weights, np.int32)
  segments[1] *= 2
  packed = dataclasses.replace(
    batch,
    targets=pack(batch.targets),
    weights=pack(batch.weights),
    segments=Pair(jnp.ones((1, 2), jnp.int32), jnp.array([[1, 1, 1, 1, 2, 2]])),
  )
  objective = OBJECTIVES[name]
  np.testing.assert_allclose(
    score(objective, packed, pack(student), pack(teacher))[0],
    score(objective, batch, student, teacher)[0],
    rtol=1e-6,
  )


def test_no_gradient_reaches_the_teacher_and_none_comes_from_the_metrics():
  batch = make_batch()
  student, teacher = make_logits(batch)
  head = np.eye(TEACHER_ROWS, dtype=np.float32)

  def loss(hidden, head, part):
    scored = student if part == "loss" else hidden[..., :STUDENT_ROWS]
    loss, measured = Distillation(divergence.ForwardKL())(
      Scored(scored, lambda hidden: hidden),
      {"teacher": Scored(hidden, lambda hidden: hidden @ head)},
      batch,
      masks.coefficients(batch.weights, "token"),
      vocabulary_size=REAL,
    )
    return loss if part == "loss" else sum(m.total for m in measured.values())

  for part in ("loss", "metrics"):
    for gradient in jax.grad(loss, (0, 1))(jnp.asarray(teacher), head, part):
      assert not np.asarray(gradient).any(), part


def test_metrics_are_token_means_at_temperature_one_over_real_ids():
  batch = make_batch()
  student, teacher = make_logits(batch)
  objective = Distillation(divergence.TotalVariation(), 0.1, 3.0)
  _, measured = score(objective, batch, student, teacher)
  log_p = log_softmax(teacher[..., :REAL])
  log_q = log_softmax(student[..., :REAL])
  p, q = np.exp(log_p), np.exp(log_q)
  expected = {
    "forward_kl": (p * (log_p - log_q)).sum(-1),
    "reverse_kl": (q * (log_q - log_p)).sum(-1),
    "student_entropy": -(q * log_q).sum(-1),
    "teacher_entropy": -(p * log_p).sum(-1),
    "agreement": p.argmax(-1) == q.argmax(-1),
  }
  counts = np.asarray(batch.weights) > 0
  for name, values in expected.items():
    assert float(measured[name].count) == counts.sum()
    np.testing.assert_allclose(
      measured[name].compute(), values[counts].mean(), rtol=1e-5, err_msg=name
    )


def test_loss_is_split_by_source():
  batch = make_batch((5, 3, 2, 1))
  student, teacher = make_logits(batch)
  loss, measured = score(CrossEntropy(), batch, student, teacher)
  log_q = log_softmax(student)
  values = -np.take_along_axis(log_q, batch.targets[..., None], -1)[..., 0]
  rows = np.array([values[i, :n].mean() for i, n in enumerate((5, 3, 2, 1))])
  sources = {"dataset": [0], "student": [1, 3], "teacher": [2]}
  for name, chosen in sources.items():
    np.testing.assert_allclose(
      measured[f"loss/{name}"].compute(), rows[chosen].mean(), rtol=1e-5
    )
  total = sum(measured[f"loss/{name}"].total for name in sources)
  np.testing.assert_allclose(total, loss, rtol=1e-6)


@pytest.mark.parametrize("name", ["reverse", "chunked", "cross_entropy"])
def test_metrics_come_by_thirds_of_a_sequence(name):
  batch = make_batch((5, 3, 0, 1))
  student, teacher = make_logits(batch)
  _, measured = score(OBJECTIVES[name], batch, student, teacher)
  q = np.exp(log_softmax(student[..., :REAL].astype(np.float64)))
  entropy = -(q * np.log(q)).sum(-1)
  thirds = {
    "first_third": [(0, 0), (0, 1), (1, 0), (3, 0)],
    "middle_third": [(0, 2), (0, 3), (1, 1)],
    "last_third": [(0, 4), (1, 2)],
  }
  for third, places in thirds.items():
    rows, columns = zip(*places, strict=True)
    mean = measured[f"student_entropy/{third}"]
    np.testing.assert_allclose(
      mean.compute(), entropy[rows, columns].mean(), rtol=1e-5
    )
    assert measured[f"agreement/{third}"].count == len(places)
  total = sum(measured[f"loss/{third}"].total for third in thirds)
  sources = ("dataset", "student", "teacher")
  by_source = sum(measured[f"loss/{source}"].total for source in sources)
  np.testing.assert_allclose(total, by_source, rtol=1e-5)


def test_a_source_without_rows_is_left_out_of_the_report():
  batch = make_batch()  # the teacher's row is empty
  student, teacher = make_logits(batch)
  _, measured = score(OBJECTIVES["reverse"], batch, student, teacher)
  reported = metrics.compute(measured)
  assert "loss/student" in reported
  assert "loss/teacher" not in reported


def test_cross_entropy_compares_with_a_teacher_only_when_there_is_one():
  batch = make_batch()
  student, teacher = make_logits(batch)
  alone = score(CrossEntropy(), batch, student, None)
  watched = score(CrossEntropy(), batch, student, teacher)
  assert alone[0] == watched[0]
  added = watched[1].keys() - alone[1].keys()
  assert {name.partition("/")[0] for name in added} == KLS
  assert {"token_accuracy", "student_entropy"} <= alone[1].keys()
  reference = score(OBJECTIVES["reverse"], batch, student, teacher)[1]
  for name in KLS:
    np.testing.assert_allclose(
      watched[1][name].compute(), reference[name].compute(), rtol=1e-6
    )


def test_accuracy_equals_t5x(golden):
  folder = golden / "t5x"
  raw = np.load(folder / "batch.npz")
  outputs = np.load(folder / "t5_1_1_tiny" / "forward_end10.npz")
  batch = dataclasses.replace(
    make_batch(),
    targets=jnp.asarray(raw["decoder_target_tokens"]),
    weights=jnp.asarray(raw["decoder_loss_weights"], jnp.float32),
  )
  loss, measured = score(
    CrossEntropy(z_loss=1e-4), batch, outputs["logits"], None, "sum"
  )
  np.testing.assert_allclose(loss, outputs["loss"], rtol=1e-5)
  np.testing.assert_allclose(
    measured["token_accuracy"].compute(), outputs["metric_accuracy"], rtol=1e-6
  )


def test_infinities_at_uncounted_positions_do_no_harm():
  """Both the loss and its gradient: 0 * inf would be NaN."""
  batch = make_batch()
  student, teacher = make_logits(batch)
  gone = np.asarray(batch.weights) == 0
  student[gone, 2] = -np.inf
  objective = Distillation(divergence.ForwardKL())
  loss, gradient = train(objective, batch, student, teacher)
  assert np.isfinite(loss)
  assert np.isfinite(gradient).all()


def test_words_say_the_objective():
  assert Distillation(divergence.ReverseKL()).describe() == (
    "distillation: reverse KL, sum_v q log(q/p), "
    "p = teacher at temperature 1, q = student at temperature 1"
  )
  assert "teacher at temperature 0.1" in (
    Distillation(divergence.ForwardKL(), teacher_temperature=0.1).describe()
  )
  words = CrossEntropy(z_loss=1e-4, label_smoothing=0.1).describe()
  assert "z-loss 0.0001" in words
  assert "label smoothing 0.1" in words
  assert (
    CrossEntropy().describe() == "cross-entropy: -log q(target), q = student"
  )


def test_objectives_are_static_values_and_say_whether_they_need_a_teacher():
  for make in (
    lambda: Distillation(divergence.GeneralizedJSD(0.5), chunk_size=8),
    lambda: CrossEntropy(z_loss=1e-4),
  ):
    assert make() == make()
    assert hash(make()) == hash(make())
  assert Distillation(divergence.ForwardKL()).roles == ("teacher",)
  assert CrossEntropy().roles == ()


def distil(**fields):
  return Distillation(divergence.ForwardKL(), **fields)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (
      lambda: distil(teacher_temperature=0.0),
      "teacher_temperature is 0.0; expected a number above 0",
    ),
    (lambda: distil(student_temperature=-1), "student_temperature is -1; exp"),
    (lambda: distil(student_temperature="1"), "student_temperature is '1'; ex"),
    (lambda: distil(chunk_size=0), "chunk_size is 0; expected a whole number"),
    (lambda: distil(chunk_size=12.5), "chunk_size is 12.5; expected a whole"),
    (
      lambda: Distillation(divergence.ForwardKL),
      "divergence is .*; expected an object such as",
    ),
    (lambda: Distillation("reverse_kl"), "is 'reverse_kl'; expected an object"),
    (
      lambda: CrossEntropy(z_loss=-1e-4),
      "z_loss is -0.0001; expected a number from 0 up",
    ),
    (
      lambda: CrossEntropy(label_smoothing=1.0),
      "label_smoothing is 1.0; expected a number from 0 to below 1",
    ),
    (lambda: CrossEntropy(label_smoothing=np.nan), "label_smoothing is nan;"),
  ],
)
def test_impossible_settings_are_user_errors(make, message):
  with pytest.raises(UserError, match=message):
    make()


def test_cross_entropy_objective_uses_the_one_equation():
  batch = make_batch()
  student, _ = make_logits(batch)
  loss, _ = score(OBJECTIVES["cross_entropy"], batch, student, None, "sum")
  values = likelihood.cross_entropy(
    student, batch.targets, z_loss=1e-2, label_smoothing=0.1
  )
  np.testing.assert_allclose(loss, jnp.sum(values * batch.weights), rtol=1e-6)
