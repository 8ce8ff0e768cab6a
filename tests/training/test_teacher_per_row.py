"""Teachers by row score what a pass of each over all rows would score."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import flops
from gkd import partitioning
from gkd.data.loader import Loader
from gkd.data.mixture import Mixture
from gkd.losses.minillm import MiniLLM
from gkd.losses.objective import CrossEntropy
from gkd.losses.objective import Distillation
from gkd.models import layer_stack
from gkd.models import registry
from gkd.models import t5
from gkd.sampling.two_models import Interleaved
from gkd.training import loop
from gkd.training import state as states
from gkd.training import teacher_per_row
from gkd.training.rollout import Rollout
from gkd.training.step import TrainStep
from gkd.training.step import gradients
from gkd.training.step import update_step
from gkd.training.teacher_per_row import TeacherPerRow
from gkd.types import Model
from gkd.types import UserError
from tests import tiny
from tests.training import test_step

STUDENT, SEED = test_step.STUDENT, test_step.SEED
# Another width, another table, and another family.
WIDER = t5.encoder_decoder(
  dataclasses.replace(
    tiny.TEACHER.config, emb_dim=32, vocab_size=tiny.VOCABULARY.size + 6
  )
)
DECODER = registry.build(tiny.DECODER)
MODELS = {"a": tiny.TEACHER, "b": WIDER, "c": DECODER}
PARAMS = {
  name: jax.tree.map(jnp.array, tiny.parameters(model, seed))
  for seed, (name, model) in enumerate(MODELS.items(), 1)
}
TEACHER = TeacherPerRow(tuple(MODELS), tuple(MODELS.values()))
SHARES = {
  "mixed": [2, 0, 1, 1, 0, 2, 0, 0],
  "one without rows": [2, 0, 2, 2, 0, 2, 0, 2],
  "all of one": [1] * 8,
}


def batch_of(shares: str):
  teacher = jnp.asarray(SHARES[shares], jnp.int32)
  return test_step.make_batch().replace(teacher=teacher)


@dataclasses.dataclass(frozen=True)
class Dense:
  """The reference: every teacher over all rows, of which each keeps its own."""

  objective: Distillation

  @property
  def roles(self):
    return tuple(MODELS)

  def coefficients(self, batch, reduction):
    return self.objective.coefficients(batch, reduction)

  def __call__(self, student, frozen, batch, coefficients, vocabulary_size):
    loss = 0.0
    for index, name in enumerate(MODELS):
      own = (batch.teacher == index)[:, None] * coefficients
      teacher = {"teacher": frozen[name]}
      loss += self.objective(student, teacher, batch, own, vocabulary_size)[0]
    return loss, {}


def plan(objective, **changes) -> TrainStep:
  return dataclasses.replace(
    test_step.PLAN,
    student=STUDENT,
    objective=objective,
    frozen={"teacher": TEACHER},
    **changes,
  )


def graded(made: TrainStep, params, batch):
  coefficients = made.objective.coefficients(batch, made.reduction)
  state = states.create(test_step.start(), made.optimizer.transformation())
  key = jax.random.key(0)
  arguments = state, params, batch, coefficients, key
  return jax.jit(gradients, static_argnums=0)(made, *arguments)


def assert_close(actual, expected, rtol=1e-5):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6),
    *jax.device_get((actual, expected)),
  )


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("shares", SHARES)
def test_loss_and_gradient_are_those_of_each_teacher_over_all_rows(
  shares, chunk_size
):
  batch = batch_of(shares)
  own = dataclasses.replace(test_step.PLAN.objective, chunk_size=chunk_size)
  gradient, loss, parts = graded(plan(own), {"teacher": PARAMS}, batch)
  dense = dataclasses.replace(plan(Dense(own)), frozen=MODELS)
  expected, reference, _ = graded(dense, PARAMS, batch)
  np.testing.assert_allclose(loss, reference, rtol=1e-5)
  assert float(loss) > 0.1
  assert_close(gradient, expected)
  tokens = np.asarray(batch.weights).sum(axis=1)
  for index, name in enumerate(MODELS):
    share = tokens[np.asarray(SHARES[shares]) == index].sum() / tokens.sum()
    found = parts[f"token_share/{name}"].compute()
    np.testing.assert_allclose(found, share, rtol=1e-6)


def test_micro_batches_and_other_teachers_rows_change_nothing():
  whole = update(plan(test_step.PLAN.objective))
  split = update(plan(test_step.PLAN.objective, micro_batches=4))
  assert_close(split[0].params, whole[0].params, 2e-5)
  for name, mean in whole[1].items():
    np.testing.assert_allclose(
      split[1][name].compute(), mean.compute(), rtol=2e-5, err_msg=name
    )


def update(made, batch=None, params=None):
  state = states.create(test_step.start(), made.optimizer.transformation())
  params = {"teacher": params or PARAMS}
  return update_step(made, state, params, batch or batch_of("mixed"), SEED)


@pytest.mark.parametrize(("model", "fsdp"), [(1, 1), (1, 4), (2, 2)])
def test_four_devices_equal_one(model, fsdp):
  mesh = partitioning.make_mesh(model, fsdp=fsdp)
  placed = {
    name: partitioning.place_model(
      Model(partitioning.partitioned(lm, mesh), PARAMS[name]), mesh
    )
    for name, lm in {"student": STUDENT, **MODELS}.items()
    if name != "student"
  }
  frozen = teacher_per_row.scoring_models(
    ("teacher",), placed, tuple(MODELS), mesh
  )
  made = plan(test_step.PLAN.objective, mesh=mesh)
  student = partitioning.partitioned(STUDENT, mesh)
  made = dataclasses.replace(made, student=student, frozen=frozen)
  state = states.initial_state(student, test_step.start(), made.optimizer, mesh)
  batch = jax.device_put(batch_of("mixed"), partitioning.batch_sharding(mesh))
  params = teacher_per_row.scoring_params(frozen, placed)
  state, metrics = update_step(made, state, params, batch, SEED)
  one, expected = update(plan(test_step.PLAN.objective))
  assert_close(state.params, one.params, 2e-5)
  for name in ("loss", "grad_norm", "token_share/a"):
    np.testing.assert_allclose(
      metrics[name].compute(), expected[name].compute(), rtol=2e-5
    )


def test_stacked_layers_score_the_same():
  config = dataclasses.replace(tiny.TEACHER.config, num_encoder_layers=3)
  plain, stacks = (
    registry.build(config, "", layer_stack.Execution(scan))
    for scan in (False, True)
  )
  own = jax.tree.map(jnp.array, tiny.parameters(plain, 1))
  found = [
    graded(
      dataclasses.replace(
        plan(test_step.PLAN.objective),
        frozen={"teacher": TeacherPerRow(("a", "b"), (model, tiny.TEACHER))},
      ),
      {"teacher": {"a": params, "b": PARAMS["a"]}},
      batch_of("mixed").replace(teacher=jnp.array([0, 1] * 4)),
    )[:2]
    for model, params in ((plain, own), (stacks, layer_stack.stacked(own)))
  ]
  assert_close(*found)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("num_teachers", [1, 2, 3, 5])
def test_any_shares_fit_into_the_blocks(num_teachers, copies):
  """Each row has a place of its own in a block of its teacher."""
  names = tuple(map(str, range(num_teachers)))
  mesh = partitioning.make_mesh(devices=jax.devices()[:copies])
  teacher = TeacherPerRow(names, (STUDENT,) * num_teachers, mesh)
  rng = np.random.default_rng(0)
  for num_rows in (2, 8, 12, 64):
    size = teacher.block_size(num_rows)
    assert (num_rows % size, size % copies) == (0, 0)
    padding = (num_teachers - 1) * size
    assert padding <= max(num_rows / 4, copies * (num_teachers - 1))
    for _ in range(20):
      share = rng.dirichlet(np.full(num_teachers, 0.3))
      owner = rng.choice(num_teachers, size=num_rows, p=share)
      blocks = jax.device_get(
        teacher_per_row.blocks_of(jnp.asarray(owner), num_teachers, size)
      )
      assert len(set(blocks.places.tolist())) == num_rows
      flat = blocks.rows.reshape(-1)
      np.testing.assert_array_equal(flat[blocks.places], np.arange(num_rows))
      np.testing.assert_array_equal(
        blocks.teacher[blocks.places // size], owner
      )
      # The others are passed over.
      used = sum(-(-np.bincount(owner) // size))
      assert sum(blocks.teacher < num_teachers) == used


def test_a_block_costs_one_pass_of_one_teacher():
  """Twice the teachers do not double the work, as a pass of each would."""
  batch = batch_of("mixed").replace(teacher=jnp.array([0, 1] * 4))

  def cost(model, params):
    traced = jax.jit(lambda p, b: model.hidden_of(p, b)).trace(params, batch)
    return flops.products(traced.jaxpr, 1).flops

  one = cost(tiny.TEACHER, PARAMS["a"])
  both = TeacherPerRow(("a", "b"), (tiny.TEACHER,) * 2)
  two = cost(both, {"a": PARAMS["a"], "b": PARAMS["a"]})
  assert both.block_size(8) == 2
  assert two == pytest.approx(one * 5 / 4, rel=0.03)  # 5 blocks of 2 rows


@pytest.mark.parametrize("objective", [MiniLLM(), CrossEntropy()])
def test_other_objectives_read_the_same_logits(objective):
  """On a batch of one teacher's rows they equal that teacher alone."""
  batch = batch_of("all of one")
  batch = batch.replace(source=jnp.ones(8, jnp.int32))
  alone = dataclasses.replace(plan(objective), frozen={"teacher": WIDER})
  expected = graded(alone, {"teacher": PARAMS["b"]}, batch)
  found = graded(plan(objective), {"teacher": PARAMS}, batch)
  assert_close(found[:2], expected[:2])
  for name, mean in expected[2].items():
    np.testing.assert_allclose(
      found[2][name].compute(), mean.compute(), rtol=1e-5, err_msg=name
    )


def test_a_privileged_teacher_reads_its_own_prompt():
  told = dataclasses.replace(tiny.TEACHER, privileged=True)
  both = TeacherPerRow(("a", "b"), (told, tiny.TEACHER))
  other = jnp.flip(test_step.make_batch().inputs, axis=0)
  batch = test_step.make_batch().replace(
    teacher=jnp.array([0, 1] * 4),
    teacher_inputs=other,
    teacher_input_mask=other > 0,
  )
  params = PARAMS["a"]
  found = both.hidden_of({"a": params, "b": params}, batch)
  for index, model in enumerate(both.models):
    alone = model.hidden_of(params, batch)
    np.testing.assert_allclose(
      found[index::2], alone[index::2], rtol=1e-5, atol=1e-5
    )


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
  """Two tasks, three rows of the first to one of the second."""
  folder = tmp_path_factory.mktemp("tasks")
  made = [
    (tiny.make_cache(folder / name, task=name, rows=rows), rate)
    for name, rows, rate in (("easy", 24, 3), ("hard", 16, 1))
  ]
  return Mixture(made)


def make_run(folder, caches, mixture, **changes):
  teachers = changes.pop("teachers", ("easy", "hard"))
  loader = Loader(
    mixture, batch_size=8, lengths=tiny.LENGTHS, seed=0, teachers=teachers
  )
  roles = {"student": Model(tiny.STUDENT, tiny.parameters(tiny.STUDENT, 0))}
  roles |= {
    name: Model(model, jax.device_get(PARAMS[key]))
    for name, key, model in (("easy", "a", tiny.TEACHER), ("hard", "b", WIDER))
  }
  roles |= changes.pop("more", {})
  evaluations = (tiny.make_evaluation(caches["validation"]),)
  fields = {"loader": loader, "roles": roles, "evaluations": evaluations}
  return tiny.make_run(folder, caches, teacher=None, **fields | changes)


class Stop(Exception):
  """A run that is killed."""


def test_a_run_with_two_teachers_goes_on_to_the_bit(
  tmp_path, caches, mixture, monkeypatch
):
  straight = loop.train(make_run(tmp_path / "straight", caches, mixture))
  original = loop.update_step

  def killed(made, state, *others):
    if int(state.step) == 3:
      raise Stop
    return original(made, state, *others)

  monkeypatch.setattr(loop, "update_step", killed)
  with pytest.raises(Stop):
    loop.train(make_run(tmp_path / "killed", caches, mixture))
  monkeypatch.undo()
  again = loop.train(make_run(tmp_path / "killed", caches, mixture))
  tiny.assert_identical(again, straight)
  records = [tiny.records(tmp_path / name) for name in ("killed", "straight")]
  assert records[0] == records[1]
  other = {"hard": Model(WIDER, jax.device_get(tiny.parameters(WIDER, 9)))}
  with pytest.raises(UserError, match="the content of the hard checkpoint"):
    loop.train(make_run(tmp_path / "killed", caches, mixture, more=other))
  config = dataclasses.replace(WIDER.config, dtype="bfloat16")
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS["b"])
  other = {"hard": Model(t5.encoder_decoder(config), jax.device_get(half))}
  with pytest.raises(UserError) as error:
    loop.train(make_run(tmp_path / "killed", caches, mixture, more=other))
  for part in (
    "TEACHERS['hard'].dtype: 'float32' → 'bfloat16'",
    "TEACHER_DTYPE: 'float32; float32' → 'float32; bfloat16'",
  ):
    assert part in str(error.value)
  last = records[0][-1]
  shares = [last[f"train/token_share/{name}"] for name in ("easy", "hard")]
  assert sum(shares) == pytest.approx(1)
  assert 0.6 < shares[0] < 0.9
  assert last["eval/sums/forward_kl_to_easy"] > 0
  assert last["eval/sums/forward_kl_to_hard"] > 0


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"teachers": ("easy",)}, "of easy, but the data of easy, hard; give one"),
    ({"teachers": ("a", "b")}, "of a, b, but the data of easy, hard"),
    (
      {"rollout": Rollout(0.5, off_policy_source="teacher")},
      "TEACHERS are easy, hard but they only score; set OFF_POLICY_SOURCE",
    ),
    (
      {"rollout": Rollout(1.0, proposal=Interleaved(3))},
      "and PROPOSAL to None",
    ),
    ({"objective": CrossEntropy(), "rollout": None}, "compares with no teach"),
    (
      {"more": {"teacher": Model(tiny.TEACHER, tiny.parameters(WIDER, 1))}},
      "there is another teacher for all rows",
    ),
    ({"teacher_decay": 0.9}, "another teacher for all rows"),
  ],
)
def test_teachers_that_do_not_fit_the_run_are_refused(
  changes, message, tmp_path, caches, mixture
):
  with pytest.raises(UserError, match=message) as error:
    make_run(tmp_path, caches, mixture, **changes)
  assert "\n" not in str(error.value)
