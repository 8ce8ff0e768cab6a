"""Model FLOPs of a step: the matrix products that its tokens need.

Counted in the traces of the programs that ran, which JAX keeps: nothing is
traced or compiled a second time. An update counts whole, padding included, but
without what `REMAT` and `CHUNK_SIZE` compute again. A rollout counts by what
was written: the prompts that were answered, and the decoding steps of each row
up to its own end, however long the longest may be.

  step_flops = StepFlops(train_step, frozen, rollout, vocabulary)
  means["flops"] = step_flops(state, rolled, batch, means)
"""

from collections.abc import Mapping

import numpy as np

from gkd import flops
from gkd import keys
from gkd.metrics import Mean
from gkd.sampling import generate
from gkd.text.vocabulary import Vocabulary
from gkd.training import self_teacher
from gkd.training import step
from gkd.training import teacher_per_row
from gkd.training.rollout import RolledOut
from gkd.training.rollout import Rollout
from gkd.training.state import TrainState
from gkd.training.step import TrainStep
from gkd.types import Batch
from gkd.types import Model


class StepFlops:
  """Counts each program once, when the first step that ran it has ended.

  Args:
    train_step: of the updates.
    frozen: models by role, with their parameters, but for a teacher that is
      made of the student.
    rollout: if there is one.
    vocabulary: of the batches.
  """

  def __init__(
    self,
    train_step: TrainStep,
    frozen: Mapping[str, Model],
    rollout: Rollout | None,
    vocabulary: Vocabulary,
  ):
    self._train_step, self._frozen = train_step, frozen
    self._rollout, self._vocabulary = rollout, vocabulary
    self._updates: dict[tuple[int, int], float] = {}  # by lengths
    # (FLOPs of a prompt, of a decoding step) of a row, by role and width.
    self._sampled: dict[tuple[str, int], tuple[float, float]] = {}

  def __call__(
    self,
    state: TrainState,
    rolled: RolledOut,
    batch: Batch,
    means: Mapping[str, Mean],
  ) -> Mean:
    """FLOPs of a step, all devices together.

    Args:
      state: of any step.
      rolled: what was written for the step.
      batch: what the step was trained on, of it.
      means: its metrics, on the host.
    """
    lengths = batch.inputs.shape[1], batch.targets.shape[1]
    if lengths not in self._updates:
      scored = self._train_step.frozen
      scoring = teacher_per_row.scoring_params(scored, self._frozen)
      self._updates[lengths] = step.model_flops(
        self._train_step, state, scoring, batch, np.int32(0)
      )
    total = self._updates[lengths]
    student = Model(self._train_step.student, state.params)
    teacher = self._frozen.get("teacher")
    if (decay := self._train_step.teacher_decay) is not None:
      own = self_teacher.params_of(decay, state.params, state.average)
      teacher = Model(self._train_step.frozen["teacher"], own)
    for prefix in ("", "teacher_"):
      if lengths := means.get(f"{prefix}sampled_length"):
        of_prompt, of_step = self._of_writer(prefix, student, teacher, rolled)
        rows, tokens = float(lengths.count), float(lengths.total)
        # The prompt gives the first token.
        total += of_prompt * rows + of_step * (tokens - rows)
    return Mean(np.float32(total), np.float32(1))

  def _of_writer(
    self, role: str, student: Model, teacher: Model | None, rolled: RolledOut
  ) -> tuple[float, float]:
    batch, width = rolled.batch, rolled.input_width
    length, plan = batch.targets.shape[1], self._rollout
    if (role, width) not in self._sampled:
      if width != batch.inputs.shape[1]:
        batch = batch.replace(
          inputs=batch.inputs[:, :width], input_mask=batch.input_mask[:, :width]
        )
      model, decoding, horizon = teacher, plan.decoding, None
      if not role:
        model, decoding = plan.student_sampler(student, teacher)
        horizon = plan.stop_length(0, length)
      traced = generate.trace(
        model,
        batch,
        keys.stream(0, 0, keys.Role.STUDENT_SAMPLE),
        decoding,
        max_length=length,
        vocabulary=self._vocabulary,
        horizon=horizon,
      )
      start, one = (
        flops.products(traced.jaxpr, trips).flops / len(batch.rows)
        for trips in (0, 1)
      )
      self._sampled[role, width] = start, one - start
    return self._sampled[role, width]
