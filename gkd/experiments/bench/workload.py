"""The parts of a run's steps, to be called one by one and timed from outside.

As the training loop does them, but for what it writes. Each method launches its
programs; the caller waits for what it returns.

  work = Workload(run)
  batch = work.place(work.read(step))
  rolled = jax.block_until_ready(work.sample(step, batch))
  means = jax.block_until_ready(work.update(rolled.batch))
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gkd import keys
from gkd import partitioning
from gkd.checkpoints.store import Store
from gkd.evaluation.evaluate import evaluate
from gkd.metrics import Mean
from gkd.models import layer_stack
from gkd.sampling import generate
from gkd.sampling.sampler import Samples
from gkd.training import scoring
from gkd.training import starting_point
from gkd.training import state as states
from gkd.training import step as steps
from gkd.training import teacher_per_row
from gkd.training.length_buckets import cut
from gkd.training.rollout import RolledOut
from gkd.training.rollout import Rollout
from gkd.training.rollout import roll_out
from gkd.training.run import Run
from gkd.training.step import TrainStep
from gkd.training.telemetry import PhaseTimer
from gkd.types import Array
from gkd.types import Batch
from gkd.types import Model
from gkd.types import Params


class Workload:
  """A run before its first step; updates advance `state`.

  Args:
    run: its folder is empty or missing, and gets the checkpoints of `save`. Its
      λ is ignored: `sample` is wholly on-policy, `fixed` wholly off.
  """

  def __init__(self, run: Run):
    self.run = run
    self._store = Store(run.folder / "checkpoints")
    _, self.state, *_ = starting_point.restored(run, self._store)
    self._frozen = starting_point.frozen(run, self.state, first_start=False)
    self._train_step = run.train_step
    self._scoring = teacher_per_row.scoring_params(
      self._train_step.frozen, self._frozen
    )
    self._saved = 0
    plan = run.rollout or Rollout(1.0)
    self._plan = dataclasses.replace(plan, student_fraction=1.0)
    self._fixed_plan = dataclasses.replace(
      plan, student_fraction=0.0, off_policy_source="dataset"
    )

  @property
  def models(self) -> dict[str, Model]:
    """By role, those that learn as they are now."""
    return starting_point.models(self.run, self.state, self._frozen)

  def read(self, step: int) -> Batch:
    """The loader's batch, on the host."""
    return self.run.loader.batch(step)

  def place(self, batch: Batch) -> Batch:
    """The batch on the devices."""
    return jax.device_put(batch, partitioning.batch_sharding(self.run.mesh))

  def sample(self, step: int, batch: Batch) -> RolledOut:
    """The batch with targets of the student, rewarded where a run does so."""
    return self._roll_out(step, batch, self._plan)

  def fixed(self, step: int, batch: Batch) -> RolledOut:
    """The batch with the targets of the data set."""
    return self._roll_out(step, batch, self._fixed_plan)

  def prefill(self, batch: Batch) -> Samples:
    """Reads the prompts and draws the first token of each."""
    return self._generate(generate.generate, batch, 1)

  def score(self, batch: Batch) -> dict[str, Array]:
    """Largest logit [B, T] of the student and each model it is compared with.

    Forward passes alone: hidden states and heads, without dropout.
    """
    return _score(*self._score_arguments(batch))

  def update(self, batch: Batch) -> dict[str, Mean]:
    """Metrics of an update on a batch as trained on."""
    batch = cut(batch, self.run.length_buckets, PhaseTimer())
    self.state, means = steps.update_step(*self._update_arguments(batch))
    return means

  def evaluate(self) -> dict[str, float]:
    """Values of the run's first evaluation, of its first batch alone."""
    return evaluate(
      self._evaluation,
      self.models,
      seed=self.run.seed,
      step=0,
      batch_sharding=partitioning.batch_sharding(self.run.mesh),
    )

  def save(self) -> None:
    """Writes a checkpoint; waits until it is complete."""
    self._saved += 1
    self._store.save(self._saved, states.without_stacks(self.state))
    self._store.wait()

  def restore(self) -> Any:
    """The state that was saved last."""
    run = self.run
    like = states.abstract_state(
      run.student.lm, run.optimizer, run.mesh, run.teacher_decay
    )
    plain = self._store.restore(self._saved, layer_stack.unstacked(like))
    return states.with_stacks(plain, like)

  def traces(self, batch: Batch) -> dict[str, jax.stages.Traced]:
    """The large programs, which JAX keeps after they ran."""
    length = batch.targets.shape[1]
    return {
      "sample": self._generate(generate.trace, batch, length),
      "score": _score.trace(*self._score_arguments(batch)),
      "update": steps.update_step.trace(*self._update_arguments(batch)),
    }

  def update_flops(self, batch: Batch) -> float:
    """Of `update`, without what is computed a second time."""
    return steps.model_flops(*self._update_arguments(batch))

  @functools.cached_property
  def _evaluation(self):
    """Kept, as it keeps the results of frozen models."""
    first = self.run.evaluations[0]
    rows = min(first.batch_size, first.num_rows)
    return dataclasses.replace(first, num_examples=rows)

  def _roll_out(self, step: int, batch: Batch, plan: Rollout) -> RolledOut:
    run = self.run
    if run.rollout is None and plan is self._fixed_plan:
      return RolledOut(batch, {}, {})
    rolled = roll_out(
      batch,
      step=step,
      seed=run.seed,
      plan=plan,
      student=self.models["student"],
      teacher=self.models.get("teacher"),
      vocabulary=run.loader.vocabulary,
      input_width=plan.input_width(lambda: jax.device_get(batch)),
    )
    if not run.objective.needs_advantages:
      return rolled
    return scoring.score(
      rolled,
      run.loader.examples(step),
      plan=run.scoring,
      samples_per_prompt=run.loader.samples_per_prompt,
      vocabulary=run.loader.vocabulary,
      timer=PhaseTimer(),
    )

  def _generate(
    self, function: Callable[..., Any], batch: Batch, length: int
  ) -> Any:
    models = self.models
    student, decoding = self._plan.student_sampler(
      models["student"], models.get("teacher")
    )
    return function(
      student,
      batch,
      keys.stream(self.run.seed, 0, keys.Role.STUDENT_SAMPLE),
      decoding,
      max_length=length,
      vocabulary=self.run.loader.vocabulary,
      horizon=self._plan.stop_length(0, length),
    )

  def _score_arguments(self, batch: Batch) -> tuple[Any, ...]:
    models = teacher_per_row.scoring_params(
      self._train_step.frozen, self.models
    )
    return self._train_step, self.state.params, models, batch

  def _update_arguments(self, batch: Batch) -> tuple[Any, ...]:
    seed = np.int32(self.run.seed)
    return self._train_step, self.state, self._scoring, batch, seed


@functools.partial(jax.jit, static_argnums=0)
def _score(
  train_step: TrainStep,
  params: Params,
  frozen_params: Mapping[str, Params],
  batch: Batch,
) -> dict[str, Array]:
  models = {"student": train_step.student, **train_step.frozen}
  all_params = {"student": params, **frozen_params}
  largest = {}
  for role, model in models.items():
    own = model.on_device(all_params[role])
    logits = model.head_of(own, batch)(model.hidden_of(own, batch))
    largest[role] = jnp.max(logits, axis=-1)
  return largest
