import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import keys
from gkd import partitioning
from gkd.sampling import generate
from gkd.sampling import sampler
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.training import rollout
from gkd.training.rollout import Constant
from gkd.training.rollout import Rollout
from gkd.training.schedules import Linear
from gkd.types import Batch
from gkd.types import Model
from gkd.types import Source
from gkd.types import UserError
from tests import tiny
from tests.sampling import toy_model

B, I, T = 8, 5, 6
MODEL = toy_model.toy_model()
STUDENT = MODEL.init(jax.random.key(0))
TEACHER = MODEL.init(jax.random.key(1))
SEED = 11


def roll_out(batch, *, step, plan, **changes):
  """Batch and metrics; raises what failed in it."""
  fields = {
    "seed": SEED,
    "student": Model(MODEL, STUDENT),
    "teacher": Model(MODEL, TEACHER),
    "vocabulary": toy_model.VOCABULARY,
    "input_width": plan.input_width(lambda: jax.device_get(batch)),
  }
  rolled = rollout.roll_out(batch, step=step, plan=plan, **fields | changes)
  rollout.raise_failure(rolled.checks, step + 1)
  return rolled.batch, rolled.metrics


def _batch(with_targets=True, rows=None):
  inputs = np.pad(toy_model.make_inputs(B), ((0, 0), (0, I - 4)))
  targets = np.zeros((B, T), np.int32)
  if with_targets:
    targets[:, :2] = [7, 1]
  rows = np.arange(B, dtype=np.int32) + 100 if rows is None else rows
  return Batch(
    inputs=inputs,
    input_mask=inputs > 0,
    targets=targets,
    weights=(targets > 0).astype(np.float32),
    rows=np.asarray(rows, np.int32),
    source=np.zeros(B, np.int32),
  )


def test_a_privileged_teacher_answers_and_scores_its_own_prompt():
  plan = Rollout(0.0, off_policy_source="teacher", input_buckets=(3,))
  teacher = Model(dataclasses.replace(MODEL, privileged=True), TEACHER)
  batch, own = _batch(), _batch().inputs[::-1]
  given = batch.replace(teacher_inputs=own, teacher_input_mask=own > 0)
  written, _ = roll_out(given, step=0, plan=plan, teacher=teacher)
  swapped = batch.replace(inputs=own, input_mask=own > 0)
  expected, _ = roll_out(swapped, step=0, plan=plan)
  np.testing.assert_array_equal(written.targets, expected.targets)
  np.testing.assert_array_equal(written.inputs, batch.inputs)
  assert not np.array_equal(
    written.targets, roll_out(batch, step=0, plan=plan)[0].targets
  )
  np.testing.assert_array_equal(
    teacher.lm.hidden_of(TEACHER, given), MODEL.hidden_of(TEACHER, swapped)
  )


def _expected(params, role, step, batch=None):
  """What the model answers to the whole batch."""
  batch = batch or _batch()
  return toy_model.sample(
    MODEL,
    params,
    batch.inputs,
    batch.rows,
    keys.stream(SEED, step, role),
    SamplingParams(),
    max_length=T,
  )


def _values(statistics):
  return {name: mean.compute() for name, mean in statistics.items()}


@pytest.mark.parametrize("mixing", ["step", "example"])
def test_lambda_one_answers_every_batch_with_the_current_student(mixing):
  plan = Rollout(1.0, mixing=mixing)
  for step in range(20):
    batch, statistics = roll_out(_batch(), step=step, plan=plan)
    assert (np.asarray(batch.source) == Source.STUDENT).all()
    assert _values(statistics)["lambda"] == 1.0
  samples = _expected(STUDENT, keys.Role.STUDENT_SAMPLE, 19)
  np.testing.assert_array_equal(batch.targets, samples.tokens)
  np.testing.assert_array_equal(batch.weights, samples.weights)
  np.testing.assert_array_equal(batch.inputs, _batch().inputs)
  values = _values(statistics)
  lengths = np.asarray(samples.lengths)
  assert values["sampled_length"] == pytest.approx(lengths.mean())
  truncated = np.asarray(samples.truncated).mean()
  assert values["truncation_rate"] == pytest.approx(truncated)
  assert values["eos_rate"] == pytest.approx(1 - truncated)
  texts = [t[:n] for t, n in zip(samples.tokens, lengths, strict=True)]
  repeats = np.concatenate([text[1:] == text[:-1] for text in texts])
  assert values["repetition_rate"] == pytest.approx(repeats.mean())


@pytest.mark.parametrize("mixing", ["step", "example"])
def test_lambda_zero_keeps_every_batch(mixing):
  plan = Rollout(0.0, mixing=mixing)
  for step in range(20):
    batch, statistics = roll_out(_batch(), step=step, plan=plan)
    np.testing.assert_array_equal(batch.targets, _batch().targets)
    np.testing.assert_array_equal(batch.weights, _batch().weights)
    assert (np.asarray(batch.source) == Source.DATASET).all()
    assert _values(statistics) == {"lambda": 0.0}


def test_a_step_is_the_students_iff_its_uniform_is_below_lambda():
  plan = Rollout(0.3)
  chosen = []
  for step in [*range(96), 1023, 1024, 1025, 2**30]:
    batch, statistics = roll_out(_batch(), step=step, plan=plan)
    source = np.asarray(batch.source)
    uniform = jax.random.uniform(keys.stream(SEED, step, keys.Role.LAMBDA))
    assert (source == int(float(uniform) < 0.3)).all()
    assert _values(statistics)["lambda"] == source[0]
    chosen.append(source[0])
  # 100 draws at 0.3: five standard deviations are 0.23.
  assert 0.07 < np.mean(chosen) < 0.53


def test_lambda_per_example_mixes_within_a_batch():
  plan = Rollout(0.3, mixing="example")
  fractions = []
  for step in range(60):
    batch, statistics = roll_out(_batch(), step=step, plan=plan)
    source = np.asarray(batch.source)
    fractions.append(source.mean())
    assert _values(statistics)["lambda"] == pytest.approx(source.mean())
  assert 0.15 < np.mean(fractions) < 0.45  # 480 draws
  assert len(set(fractions)) > 2
  mixed = np.asarray(batch.source) == Source.STUDENT
  samples = _expected(STUDENT, keys.Role.STUDENT_SAMPLE, 59)
  np.testing.assert_array_equal(
    batch.targets, np.where(mixed[:, None], samples.tokens, _batch().targets)
  )
  np.testing.assert_array_equal(
    batch.weights, np.where(mixed[:, None], samples.weights, _batch().weights)
  )


def test_rows_that_keep_their_targets_do_not_hold_the_loop_up():
  calls = []
  model = toy_model.toy_model(on_decode=lambda: calls.append(1))
  table = np.zeros((3, 12, 12), np.float32)
  table[2, :, 1] = 1000  # prompts of id 2 are answered by EOS at once,
  table[0, :, 4] = 1000  # those of id 3 without end
  plan = Rollout(0.5, mixing="example")
  source = np.asarray(roll_out(_batch(), step=4, plan=plan)[0].source)
  assert 0 < source.sum() < B
  given = _batch()
  given.inputs[:, 0] = np.where(source == Source.STUDENT, 2, 3)
  student = Model(model, {"table": table})
  batch, _ = roll_out(given, step=4, plan=plan, student=student)
  jax.block_until_ready(batch)
  jax.effects_barrier()
  np.testing.assert_array_equal(batch.source, source)
  assert not calls


def test_an_examples_lot_depends_on_its_row_not_on_its_place():
  plan = Rollout(0.5, mixing="example")
  batch, _ = roll_out(_batch(), step=4, plan=plan)
  order = np.random.default_rng(0).permutation(B)
  shuffled = jax.tree.map(lambda array: array[order], _batch())
  shuffled, _ = roll_out(shuffled, step=4, plan=plan)
  for name in ("targets", "weights", "source", "rows"):
    np.testing.assert_array_equal(
      getattr(shuffled, name), np.asarray(getattr(batch, name))[order]
    )


def test_equal_rows_of_a_batch_have_draws_of_their_own():
  given = _batch(rows=np.full(B, 100))
  given.inputs[:] = given.inputs[0]
  batch, _ = roll_out(given, step=4, plan=Rollout(1.0))
  assert len(np.unique(batch.targets, axis=0)) > B // 2
  alone, _ = roll_out(_batch(), step=4, plan=Rollout(1.0))
  np.testing.assert_array_equal(batch.targets[0], alone.targets[0])
  plan = Rollout(0.5, mixing="example")
  batch, _ = roll_out(given, step=4, plan=plan)
  assert len(np.unique(batch.source)) == 2


def test_the_teacher_answers_in_place_of_the_data_set():
  plan = Rollout(0.0, off_policy_source="teacher")
  batch, statistics = roll_out(_batch(False), step=2, plan=plan)
  samples = _expected(TEACHER, keys.Role.TEACHER_SAMPLE, 2)
  np.testing.assert_array_equal(batch.targets, samples.tokens)
  np.testing.assert_array_equal(batch.weights, samples.weights)
  assert (np.asarray(batch.source) == Source.TEACHER).all()
  values = _values(statistics)
  assert values["lambda"] == 0.0
  lengths = np.asarray(samples.lengths)
  assert values["teacher_sampled_length"] == pytest.approx(lengths.mean())
  assert "sampled_length" not in values  # the student wrote nothing


def test_student_and_teacher_share_a_batch_per_example():
  plan = Rollout(0.5, mixing="example", off_policy_source="teacher")
  batch, statistics = roll_out(_batch(False), step=3, plan=plan)
  source = np.asarray(batch.source)
  assert set(source.tolist()) == {Source.STUDENT, Source.TEACHER}
  by_student = _expected(STUDENT, keys.Role.STUDENT_SAMPLE, 3)
  by_teacher = _expected(TEACHER, keys.Role.TEACHER_SAMPLE, 3)
  mine = source == Source.STUDENT
  np.testing.assert_array_equal(
    batch.targets,
    np.where(mine[:, None], by_student.tokens, by_teacher.tokens),
  )
  # What the teacher writes does not move the numbers of the student.
  values = _values(statistics)
  for prefix, samples, rows in (
    ("", by_student, mine),
    ("teacher_", by_teacher, ~mine),
  ):
    truncated = np.asarray(samples.truncated)[rows].mean()
    assert values[f"{prefix}sampled_length"] == pytest.approx(
      np.asarray(samples.lengths)[rows].mean()
    )
    assert values[f"{prefix}truncation_rate"] == pytest.approx(truncated)
    assert values[f"{prefix}eos_rate"] == pytest.approx(1 - truncated)
  assert values["lambda"] == mine.mean()


def test_prompts_without_targets_do_unless_a_step_needs_them():
  roll_out(_batch(False), step=0, plan=Rollout(1.0))
  message = r"step 1 trains on the data set's targets, but 8 rows of"
  with pytest.raises(UserError, match=message):
    roll_out(_batch(False), step=0, plan=Rollout(0.0))
  with pytest.raises(UserError, match="of its batch have none; give targets"):
    roll_out(_batch(False), step=0, plan=Rollout(0.5, mixing="example"))
  partly = _batch()
  partly.weights[3] = 0
  with pytest.raises(UserError, match="but 1 rows of its batch have none"):
    roll_out(partly, step=0, plan=Rollout(0.0))


def test_filler_rows_are_left_alone_and_not_counted():
  rows = np.where(np.arange(B) < 3, np.arange(B), -1)
  given = _batch(rows=rows)
  given.weights[3:] = 0
  for plan in (Rollout(1.0), Rollout(0.0)):
    batch, statistics = roll_out(given, step=0, plan=plan)
    assert not np.asarray(batch.weights)[3:].any()
    assert not np.asarray(batch.source)[3:].any()
    assert statistics["lambda"].count == 3
  batch, statistics = roll_out(given, step=0, plan=Rollout(1.0))
  assert statistics["sampled_length"].count == 3


def test_needs_of_a_plan_are_known_beforehand():
  assert not Rollout(1.0).needs_targets
  assert Rollout(0.9).needs_targets
  assert Rollout(Linear(1.0, 0.5, 0, 10)).needs_targets
  assert not Rollout(0.0, off_policy_source="teacher").needs_targets
  assert Rollout(0.0, off_policy_source="teacher").needs_teacher
  assert not Rollout(1.0, off_policy_source="teacher").needs_teacher


def test_lambda_follows_a_schedule():
  schedule = Linear(1.0, 0.0, begin_step=10, end_step=20)
  assert [schedule(step) for step in (0, 10, 20, 99)] == [1.0, 1.0, 0.0, 0.0]
  assert schedule(15) == pytest.approx(0.5)
  assert Linear(0.1, 0.7, 0, 3)(3) == 0.7
  plan = Rollout(schedule)
  for step, source in ((10, Source.STUDENT), (20, Source.DATASET)):
    batch, _ = roll_out(_batch(), step=step, plan=plan)
    assert (np.asarray(batch.source) == source).all()


def test_input_buckets_trim_prompts_and_change_no_answer(monkeypatch):
  widths = []
  original = sampler.sample

  def spy(model, params, inputs, *args, **kwargs):
    widths.append(inputs.shape[1])  # at tracing: once for each compile
    return original(model, params, inputs, *args, **kwargs)

  monkeypatch.setattr(sampler, "sample", spy)
  uncompiled = dataclasses.replace(MODEL, init=lambda key: None)
  student = Model(uncompiled, STUDENT)
  plan = Rollout(1.0, input_buckets=[2, 4, 64])
  long = _batch()
  long.inputs[5, 4] = 3
  long.input_mask[5, :] = True
  for given in (_batch(), long):
    batch, _ = roll_out(given, step=1, plan=plan, student=student)
    expected = _expected(STUDENT, keys.Role.STUDENT_SAMPLE, 1, given)
    np.testing.assert_array_equal(batch.targets, expected.tokens)
    assert batch.inputs.shape == (B, I)
  on_device = jax.tree.map(jnp.asarray, _batch())
  roll_out(on_device, step=1, plan=plan, student=student)
  # _expected traces too, at the full width, the first time.
  assert [w for w in widths if w != I] == [2]
  assert I in widths


def test_changed_decoding_lambda_step_and_seed_do_not_compile():
  roll_out(_batch(), step=0, plan=Rollout(1.0))
  programs = generate._generate._cache_size()
  splits = rollout._split._cache_size()
  for seed, step, plan in (
    (1, 5, Rollout(1.0, decoding=SamplingParams(0.5))),
    (2, 6, Rollout(1.0, decoding=SamplingParams(0, 3, 1))),
    (3, 7, Rollout(Constant(1), decoding=SamplingParams(2, 0, 0.9))),
  ):
    roll_out(_batch(), step=step, seed=seed, plan=plan)
  again = Model(dataclasses.replace(MODEL), STUDENT)
  roll_out(_batch(), step=1, plan=Rollout(1.0), student=again)
  assert generate._generate._cache_size() == programs
  assert rollout._split._cache_size() == splits


@pytest.mark.parametrize("num_rows", [B, 3])
def test_a_sharded_batch_stays_sharded_and_gets_the_same_answers(num_rows):
  mesh = partitioning.make_mesh()
  sharding = partitioning.batch_sharding(mesh)
  on_host = _batch(rows=np.arange(B) % num_rows)
  given = jax.device_put(on_host, sharding)
  plan = Rollout(0.5, mixing="example")
  batch, statistics = roll_out(given, step=3, plan=plan)
  single, expected = roll_out(on_host, step=3, plan=plan)
  for name in ("targets", "weights", "source"):
    new, old = getattr(batch, name), getattr(given, name)
    assert new.sharding == old.sharding
    np.testing.assert_array_equal(new, getattr(single, name))
  assert _values(statistics) == _values(expected)


def test_greedy_answers_of_a_split_model_equal_one_device():
  student = Model(tiny.STUDENT, tiny.parameters(tiny.STUDENT, 2))
  mesh = partitioning.make_mesh(model=2)
  spread = partitioning.place_model(student, mesh)
  assert any(
    not x.sharding.is_fully_replicated for x in jax.tree.leaves(spread.params)
  )
  plan = Rollout(1.0, decoding=SamplingParams(0.0))
  given = _batch()
  single, _ = roll_out(given, step=0, plan=plan, student=student)
  given = jax.device_put(given, partitioning.batch_sharding(mesh))
  batch, _ = roll_out(given, step=0, plan=plan, student=spread)
  assert len({tuple(row) for row in np.asarray(single.targets)}) > 1
  np.testing.assert_array_equal(batch.targets, single.targets)
  np.testing.assert_array_equal(batch.weights, single.weights)


@pytest.mark.parametrize("gathers", [True, False])
def test_draws_of_a_model_that_is_shared_equal_one_device(gathers):
  lm = dataclasses.replace(tiny.STUDENT, gathers_to_sample=gathers)
  student = Model(lm, tiny.parameters(tiny.STUDENT, 2))
  mesh = partitioning.make_mesh(model=2, fsdp=2)
  spread = partitioning.place_model(student, mesh)
  spread = dataclasses.replace(spread, lm=partitioning.partitioned(lm, mesh))
  plan, given = Rollout(1.0), _batch()
  single, _ = roll_out(given, step=0, plan=plan, student=student)
  given = jax.device_put(given, partitioning.batch_sharding(mesh))
  batch, _ = roll_out(given, step=0, plan=plan, student=spread)
  np.testing.assert_array_equal(batch.targets, single.targets)


def test_a_failure_to_generate_is_an_error():
  broken = Model(MODEL, {"table": STUDENT["table"].at[0].set(jnp.nan)})
  with pytest.raises(FloatingPointError, match=r"step 10: .* the student's"):
    roll_out(_batch(), step=9, plan=Rollout(1.0), student=broken)
  plan = Rollout(0.0, off_policy_source="teacher")
  with pytest.raises(FloatingPointError, match=r"step 10: .* the teacher's"):
    roll_out(_batch(), step=9, plan=plan, teacher=broken)


def test_a_packed_batch_is_refused():
  packed = _batch().replace(segments=(np.ones((B, I)), np.ones((B, T))))
  with pytest.raises(UserError, match="packed batch"):
    roll_out(packed, step=0, plan=Rollout(1.0))


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"student_fraction": 1.5}, "student fraction is 1.5; expected a number"),
    ({"student_fraction": "1"}, "student fraction is '1'; expected a number"),
    ({"student_fraction": True}, "student fraction is True; expected"),
    ({"student_fraction": Linear}, "minimum of the student fraction"),
    ({"mixing": "row"}, "mixing is 'row'; expected one of"),
    (
      {"off_policy_source": "student"},
      "off_policy_source is 'student'; expected one of",
    ),
    ({"decoding": SamplingParams(-1.0)}, "temperature is -1.0"),
    (
      {"decoding": BeamSearch(4)},
      r"rollout is BeamSearch\(size=4, alpha=0.6\); expected SamplingParams:",
    ),
    ({"input_buckets": (8, 4)}, r"input_buckets are \(8, 4\); expected"),
  ],
)
def test_wrong_plans_are_named(arguments, message):
  with pytest.raises(UserError, match=message):
    Rollout(**({"student_fraction": 1.0} | arguments))


def test_wrong_schedules_are_named():
  with pytest.raises(UserError, match=r"end of schedules\.Linear is 2"):
    Linear(0.0, 2, 0, 5)
  with pytest.raises(UserError, match="from step 5 to 5; expected 0 <= begin"):
    Linear(0.0, 1.0, 5, 5)


def test_the_plan_in_words():
  assert Rollout(1.0).describe() == (
    "on-policy: every batch is answered by the current student at temperature 1"
  )
  assert Rollout(0.0).describe() == (
    "off-policy: every batch is trained on the data set's targets"
  )
  assert Rollout(
    0, off_policy_source="teacher", decoding=SamplingParams(0.0)
  ).describe() == (
    "off-policy: every batch is answered by the teacher greedily"
  )
  assert Rollout(0.5, mixing="example").describe() == (
    "mixed: with probability λ = 0.5 each example is answered by the"
    " current student at temperature 1, otherwise it is trained on the data"
    " set's targets"
  )
  words = Rollout(Linear(1.0, 0.25, 0, 100)).describe()
  assert "λ = 1 → 0.25 (steps 0–100) the whole batch is" in words
