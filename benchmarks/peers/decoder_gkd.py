"""The steps of a decoder in `gkd`, turn by turn: see `decoder.py`."""

import dataclasses
import gc
import sys

import jax
import numpy as np

from benchmarks.peers import decoder
from benchmarks.peers import turns
from gkd import api
from gkd import host_memory
from gkd import partitioning
from gkd.losses.divergence import GeneralizedJSD
from gkd.losses.objective import Distillation
from gkd.training import state as states
from gkd.training.learning_rates import LearningRateSchedule
from gkd.training.optimizer import AdamW
from gkd.training.rollout import Rollout
from gkd.training.rollout import roll_out
from gkd.training.step import TrainStep
from gkd.training.step import update_step


def main(folder: str) -> None:
  """Takes the step that each turn asks for."""
  host_memory.keep_freed()  # these two as the command does
  gc.set_threshold(10_000)
  worker = turns.Worker()
  student, teacher = (
    api.load(f"{folder}/{role}") for role in ("student", "teacher")
  )
  settings, batch = decoder.read(folder)
  mesh = partitioning.make_mesh()
  batch = jax.device_put(batch, partitioning.batch_sharding(mesh))
  optimizer = AdamW(
    schedule=LearningRateSchedule(
      learning_rate=decoder.LEARNING_RATE, total_steps=1000
    ),
    clip_norm=decoder.CLIP_NORM,
  )
  train_step = TrainStep(
    student=student.lm,
    frozen={"teacher": teacher.lm},
    objective=Distillation(GeneralizedJSD(settings["beta"])),
    optimizer=optimizer,
    reduction="token",
    mesh=mesh,
  )
  state = states.initial_state(student.lm, student.params, optimizer, mesh)
  student = dataclasses.replace(student, params={})  # frees its first ones
  plan = Rollout(student_fraction=1.0)
  step = 0
  while turn := worker.wait():
    start, trained, sampling = turns.clocks(), batch, {}
    if turn == "on_policy":
      trained, means, _ = jax.block_until_ready(
        roll_out(
          batch,
          step=step,
          seed=0,
          plan=plan,
          student=dataclasses.replace(student, params=state.params),
          teacher=None,
          vocabulary=student.vocabulary,
        )
      )
      sampling = turns.since(start)
    middle = turns.clocks()
    state, means = jax.block_until_ready(
      update_step(
        train_step, state, {"teacher": teacher.params}, trained, np.int32(0)
      )
    )
    worker.reply(
      sample=sampling,
      update=turns.since(middle),
      step=turns.since(start),
      loss=float(means["loss"].compute()),
      grad_norm=float(means["grad_norm"].compute()),
      tokens=float(np.sum(trained.weights)),
    )
    step += 1


if __name__ == "__main__":
  main(sys.argv[1])
