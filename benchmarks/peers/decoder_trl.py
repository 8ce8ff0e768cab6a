"""The steps of TRL's trainers, turn by turn: see `decoder.py`.

`Trainer.train` runs as it is: a callback holds each step until its turn, and
the methods that prompts come from and that sample are wrapped, so that ids are
those of the batch and sampling is timed.
"""

from collections.abc import Callable
import sys
from typing import Any

import datasets
import torch
import transformers
from trl import DistillationConfig
from trl import DistillationTrainer
from trl.experimental.gkd import GKDConfig
from trl.experimental.gkd import GKDTrainer

from benchmarks.peers import decoder
from benchmarks.peers import turns
from gkd.types import Batch


class Turns(transformers.TrainerCallback):
  """Waits for a turn before a step, and replies after it."""

  def __init__(self):
    self.worker = turns.Worker()
    self.turn = ""

  def timed(self, sample: Callable[..., Any], count: Callable[[Any], int]):
    """The sampler, whose time and number of tokens go into the reply."""

    def wrapped(*args):
      start = turns.clocks()
      result = sample(*args)
      self.sampling = turns.since(start)
      self.tokens = count(result)
      return result

    return wrapped

  def on_step_begin(self, args, state, control, **kwargs):
    self.sampling, self.tokens = {}, 0
    self.turn = self.worker.wait()
    if not self.turn:
      sys.exit()
    self.start = turns.clocks()

  def on_step_end(self, args, state, control, **kwargs):
    self.step = turns.since(self.start)

  def on_log(self, args, state, control, logs=None, **kwargs):
    update = {
      kind: seconds - self.sampling.get(kind, 0.0)
      for kind, seconds in self.step.items()
    }
    self.worker.reply(
      sample=self.sampling,
      update=update,
      step=self.step,
      loss=logs["loss"],
      grad_norm=logs["grad_norm"],
      tokens=self.tokens,
    )


class TimedGKD(GKDTrainer):
  """On the batch's targets (λ = 0) or the student's samples (λ = 1)."""

  def __init__(self, turns: Turns, batch: Batch, args: dict, **kwargs):
    args["max_new_tokens"] = batch.targets.shape[1]
    inputs = collated(batch)
    super().__init__(
      args=GKDConfig(**args),
      data_collator=lambda examples: dict(inputs),
      **kwargs,
    )
    self.turns = turns
    self.generate_on_policy_outputs = turns.timed(
      self.generate_on_policy_outputs, lambda r: int((r[2] != -100).sum())
    )

  def training_step(self, *args, **kwargs):
    self.lmbda = float(self.turns.turn == "on_policy")
    return super().training_step(*args, **kwargs)


class TimedDistillation(DistillationTrainer):
  """As `TimedGKD`; it has no targets of a data set, so they pass as samples."""

  def __init__(self, turns: Turns, batch: Batch, args: dict, **kwargs):
    args["max_completion_length"] = batch.targets.shape[1]
    super().__init__(args=DistillationConfig(**args), **kwargs)
    self.turns = turns
    self.prompt_ids, self.target_ids = decoder.ids(batch)
    self.sample = turns.timed(super()._generate, lambda r: sum(map(len, r[1])))

  def _tokenize_prompts(self, prompts):
    return self.prompt_ids, None, {}

  def _generate(self, prompts):
    if self.turns.turn == "on_policy":
      return self.sample(prompts)
    return self.prompt_ids, self.target_ids, None, None, None


def collated(batch: Batch) -> dict[str, torch.Tensor]:
  """The batch as TRL's collator makes it, prompts left-padded."""
  width, length = batch.inputs.shape[1], batch.targets.shape[1]
  ids = torch.zeros((len(batch.rows), width + length), dtype=torch.long)
  mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
  for row, (prompt, target) in enumerate(zip(*decoder.ids(batch), strict=True)):
    place = slice(width - len(prompt), width + len(target))
    ids[row, place] = torch.tensor(prompt + target)
    mask[row, place] = 1
    labels[row, width : place.stop] = torch.tensor(target)
  return {
    "input_ids": ids,
    "attention_mask": mask,
    "labels": labels,
    "prompts": ids[:, :width],
    "prompt_attention_mask": mask[:, :width],
  }


def main(folder: str, trainer: str) -> None:
  """Trains until the last turn."""
  settings, batch = decoder.read(folder)
  torch.set_num_threads(settings["threads"])
  student, teacher = (
    transformers.AutoModelForCausalLM.from_pretrained(
      f"{folder}/{role}", dtype=torch.float32
    )
    for role in ("student", "teacher")
  )
  rows, steps = len(batch.rows), 1000
  args = {
    "output_dir": f"{folder}/{trainer}",
    "per_device_train_batch_size": rows,
    "max_steps": steps,
    "temperature": 1.0,
    "beta": settings["beta"],
    "learning_rate": decoder.LEARNING_RATE,
    "lr_scheduler_type": "constant",
    "max_grad_norm": decoder.CLIP_NORM,
    "gradient_checkpointing": settings["gradient_checkpointing"],
    "bf16": False,
    "use_cpu": True,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
  }
  callback = Turns()
  kind = {"trl_gkd": TimedGKD, "trl_distillation": TimedDistillation}[trainer]
  kind(
    callback,
    batch,
    args,
    model=student,
    teacher_model=teacher,
    train_dataset=datasets.Dataset.from_dict({"prompt": [""] * rows * steps}),
    processing_class=transformers.AutoTokenizer.from_pretrained(
      f"{folder}/teacher", padding_side="left"
    ),
    callbacks=[callback],
  ).train()


if __name__ == "__main__":
  main(*sys.argv[1:])
