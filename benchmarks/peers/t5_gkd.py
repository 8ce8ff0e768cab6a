"""The steps of T5 in `gkd`, turn by turn: see `t5.py`."""

import argparse
import dataclasses
import functools
import gc
from typing import Any

import jax
import numpy as np

from benchmarks.peers import turns
from benchmarks.peers import work
from gkd import host_memory
from gkd import partitioning
from gkd import trees
from gkd.losses.divergence import GeneralizedJSD
from gkd.losses.objective import CrossEntropy
from gkd.losses.objective import Distillation
from gkd.models import t5
from gkd.text.vocabulary import ByteVocabulary
from gkd.training import state as states
from gkd.training.learning_rates import LearningRateSchedule
from gkd.training.optimizer import AdamW
from gkd.training.rollout import Rollout
from gkd.training.rollout import roll_out
from gkd.training.state import TrainState
from gkd.training.step import TrainStep
from gkd.training.step import update_step
from gkd.training.telemetry import peak_memory_bytes
from gkd.types import Batch
from gkd.types import Model
from gkd.types import Source


class Steps:
  """Models and batch, and a state of each objective."""

  def __init__(self, args: argparse.Namespace):
    self.args = args
    self.mesh = partitioning.make_mesh()
    self.student = make_model(args, "student", self.mesh)
    sharding = partitioning.batch_sharding(self.mesh)
    self.batch = jax.device_put(make_batch(args), sharding)
    # No id ends a text.
    rows = work.SIZES[args.size]["vocab_size"]
    self.vocabulary = ByteVocabulary(rows - ByteVocabulary().size)
    self.vocabulary.eos_ids = ()
    self.step = 0

  @functools.cached_property
  def teacher(self) -> Model:
    model = make_model(self.args, "teacher", self.mesh)
    return partitioning.place_model(model, self.mesh)

  @functools.cached_property
  def distillation(self) -> dict[str, Any]:
    """The arguments of `update_step` but for the batch."""
    step = make_step(self.args, self.student, self.teacher, self.mesh)
    return self._first(step, {"teacher": self.teacher.params})

  @functools.cached_property
  def cross_entropy(self) -> dict[str, Any]:
    step = make_step(self.args, self.student, None, self.mesh)
    return self._first(step, {})

  def _first(self, step: TrainStep, frozen: dict[str, Any]) -> dict[str, Any]:
    state = states.initial_state(
      self.student.lm, self.student.params, step.optimizer, self.mesh
    )
    return {"train_step": step, "state": state, "frozen_params": frozen}

  def fixed(self) -> dict[str, Any]:
    """Distillation on the targets of the batch."""
    return self.update(self.distillation, self.batch)

  def supervised(self) -> dict[str, Any]:
    return self.update(self.cross_entropy, self.batch)

  def on_policy(self) -> dict[str, Any]:
    held, start = self.distillation, turns.clocks()
    batch = self.sample(held["state"])
    sample = turns.since(start)
    reply = self.update(held, batch)
    assert np.all(batch.weights == 1)
    return {**reply, "sample": sample, "step": turns.since(start)}

  def sample(self, state: TrainState) -> Batch:
    """The batch with targets of the student."""
    rolled = roll_out(
      self.batch,
      step=self.step,
      seed=0,
      plan=Rollout(student_fraction=1.0),
      student=dataclasses.replace(self.student, params=state.params),
      teacher=None,
      vocabulary=self.vocabulary,
    )
    self.step += 1
    return jax.block_until_ready(rolled.batch)

  def update(self, held: dict[str, Any], batch: Batch) -> dict[str, Any]:
    """One update, with all metrics that the training loop fetches."""
    start = turns.clocks()
    held["state"], means = update_step(**held, batch=batch, seed=np.int32(0))
    means = jax.device_get(jax.block_until_ready((means, held["state"]))[0])
    clocks = turns.since(start)
    return {
      "update": clocks,
      "step": clocks,
      "loss": float(means["loss"].compute()),
      "grad_norm": float(means["grad_norm"].compute()),
      "peak_memory_bytes": peak_memory_bytes(),
    }


def make_model(args: argparse.Namespace, role: str, mesh) -> Model:
  """Student or teacher; in bfloat16 only the teacher's parameters are."""
  if role == "student":
    config = work.config(args.size, args.dtype, args.dropout)
    params = work.weights(args.size, 0)
  else:
    config = work.config(args.teacher, args.dtype)
    params = work.weights(args.teacher, 1)
    params = {n: jax.numpy.asarray(w, args.dtype) for n, w in params.items()}
  lm = partitioning.partitioned(t5.encoder_decoder(config), mesh)
  return Model(lm, trees.unflatten(params))


def make_step(
  args: argparse.Namespace, student: Model, teacher: Model | None, mesh
) -> TrainStep:
  """Distillation, or cross-entropy without a teacher."""
  objective = CrossEntropy()
  if teacher is not None:
    divergence = GeneralizedJSD(args.beta)
    objective = Distillation(divergence, chunk_size=args.chunk_size)
  schedule = LearningRateSchedule(
    learning_rate=work.LEARNING_RATE, total_steps=1000
  )
  return TrainStep(
    student=student.lm,
    frozen={"teacher": teacher.lm} if teacher else {},
    objective=objective,
    optimizer=AdamW(schedule=schedule),
    mesh=mesh,
  )


def make_batch(args: argparse.Namespace) -> Batch:
  inputs, targets = work.ids(args)
  rows = np.arange(args.batch_size, dtype=np.int32)
  return Batch(
    inputs=inputs,
    input_mask=np.ones(inputs.shape, bool),
    targets=targets,
    weights=np.ones(targets.shape, np.float32),
    rows=rows,
    source=np.full_like(rows, Source.DATASET),
  )


def main() -> None:
  """Takes the step that each turn asks for."""
  host_memory.keep_freed()  # these two as the command does
  gc.set_threshold(10_000)
  turns.serve(Steps)


if __name__ == "__main__":
  main()
