"""The steps of T5 in PyTorch and transformers, turn by turn: see `t5.py`.

What one would write without `gkd`: the student's `generate` with the model's
own distribution, the teacher without gradient, JSD(beta) by logaddexp, AdamW.
On a GPU in bfloat16 the student trains by autocast on float32 parameters, and
samples from a bfloat16 copy that each step refreshes.
"""

import argparse
import copy
import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional
import transformers

from benchmarks.peers import turns
from benchmarks.peers import work
from gkd.models import t5_params


def make_model(
  size: str, weights: dict[str, np.ndarray], dropout: float
) -> torch.nn.Module:
  """A T5 with weights by T5X's names."""
  config = work.config(size)
  tied = config.logits_via_embedding
  activation = {"relu": "relu", "gelu": "gated-gelu"}
  options = transformers.T5Config(
    vocab_size=config.vocab_size,
    d_model=config.emb_dim,
    d_kv=config.head_dim,
    num_heads=config.num_heads,
    num_layers=config.num_encoder_layers,
    num_decoder_layers=config.num_decoder_layers,
    d_ff=config.mlp_dim,
    feed_forward_proj=activation[config.mlp_activations[0]],
    dropout_rate=dropout,
    tie_word_embeddings=tied,
    decoder_start_token_id=config.start_id,
    eos_token_id=None,  # no id ends a text
  )
  model = transformers.T5ForConditionalGeneration(options)
  if not tied:
    # transformers 5 ties the head of every T5 that is built from a config.
    options.tie_word_embeddings = False
    head = torch.empty_like(model.shared.weight)
    model.lm_head.weight = torch.nn.Parameter(head)
  named = model.state_dict()
  for name, row in t5_params.table(config).items():
    array = weights[name].T if row.hf_transposed else weights[name]
    named[row.hf_name].copy_(torch.tensor(array))
  return model


def generalized_jsd(
  log_p: torch.Tensor, log_q: torch.Tensor, beta: float
) -> torch.Tensor:
  """JSD: beta KL(p||m) + (1-beta) KL(q||m), m = beta p + (1-beta) q."""
  log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
  forward, reverse = (
    functional.kl_div(log_m, log, reduction="none", log_target=True).sum(-1)
    for log in (log_p, log_q)
  )
  return beta * forward + (1 - beta) * reverse


def log_probs(
  model: torch.nn.Module,
  prompts: dict[str, torch.Tensor],
  sequences: torch.Tensor,
) -> torch.Tensor:
  """[B, T, V] of full rows [B, 1 + T], start id first."""
  logits = model(**prompts, decoder_input_ids=sequences[:, :-1]).logits
  return logits.float().log_softmax(-1)


def distillation_loss(
  student: torch.nn.Module,
  log_p: torch.Tensor,
  prompts: dict[str, torch.Tensor],
  sequences: torch.Tensor,
  beta: float,
) -> torch.Tensor:
  """Mean JSD over the tokens of full rows, from the teacher's `log_probs`."""
  log_q = log_probs(student, prompts, sequences)
  return generalized_jsd(log_p, log_q, beta).mean()


class Steps:
  """Models, optimizer and batch."""

  def __init__(self, args: argparse.Namespace):
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    self.args = args
    self.device = "cuda" if torch.cuda.is_available() else "cpu"
    if self.device == "cuda":
      torch.set_float32_matmul_precision("high" if args.tf32 else "highest")
    self.autocast = torch.autocast(
      self.device, torch.bfloat16, enabled=args.dtype == "bfloat16"
    )
    dtype = getattr(torch, args.dtype)
    weights = work.weights(args.size, 0)
    self.student = make_model(args.size, weights, args.dropout).to(self.device)
    weights = work.weights(args.teacher, 1)
    self.teacher = make_model(args.teacher, weights, 0.0)
    self.teacher = self.teacher.to(self.device, dtype).eval()
    self.log_probs, self.loss = log_probs, distillation_loss
    if args.compile:
      self.log_probs, self.loss = map(
        torch.compile, (log_probs, distillation_loss)
      )
    self.sampler = self.student
    if dtype != torch.float32:
      self.sampler = copy.deepcopy(self.student).to(dtype)
    self.optimizer = torch.optim.AdamW(
      self.student.parameters(),
      lr=work.LEARNING_RATE,
      weight_decay=0.0,
      fused=True,
    )
    inputs, targets = (
      torch.tensor(array, dtype=torch.long, device=self.device)
      for array in work.ids(args)
    )
    mask = torch.ones_like(inputs)
    self.prompts = {"input_ids": inputs, "attention_mask": mask}
    start = torch.zeros_like(targets[:, :1])
    self.sequences = torch.cat([start, targets], 1)

  def fixed(self) -> dict[str, Any]:
    """Distillation on the targets of the batch."""
    return self.update(self.sequences)

  def on_policy(self) -> dict[str, Any]:
    start = turns.clocks()
    sequences = self.sample()
    sample = self.since(start)
    reply = self.update(sequences)
    assert sequences.shape == self.sequences.shape
    return {**reply, "sample": sample, "step": self.since(start)}

  def sample(self) -> torch.Tensor:
    """Sequences of the student [B, 1 + T]."""
    if self.sampler is not self.student:
      with torch.no_grad():
        torch._foreach_copy_(
          list(self.sampler.parameters()), list(self.student.parameters())
        )
    self.sampler.eval()
    with torch.inference_mode():
      sequences = self.sampler.generate(
        **self.prompts,
        do_sample=True,
        top_k=0,
        max_new_tokens=self.args.target_length,
        cache_implementation=self.args.cache,
      )
    return sequences.clone()  # one that a backward pass may keep

  def update(self, sequences: torch.Tensor) -> dict[str, Any]:
    """One optimizer step; the teacher's part of the update is `score`."""
    start = turns.clocks()
    self.student.train()
    self.optimizer.zero_grad(set_to_none=True)
    with self.autocast:
      with torch.no_grad():
        log_p = self.log_probs(self.teacher, self.prompts, sequences)
      score = self.since(start)
      loss = self.loss(
        self.student, log_p, self.prompts, sequences, self.args.beta
      )
    loss.backward()
    self.optimizer.step()
    update = self.since(start)
    gradients = [w.grad for w in self.student.parameters()]
    cuda = self.device == "cuda"
    return {
      "score": score,
      "update": update,
      "step": update,
      "loss": loss.item(),
      "grad_norm": torch.nn.utils.get_total_norm(gradients).item(),
      "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else None,
      "attention": self.student.config._attn_implementation,
    }

  def since(self, start: tuple[float, float]) -> dict[str, float]:
    """`turns.since`, when the device is done."""
    if self.device == "cuda":
      torch.cuda.synchronize()
    return turns.since(start)


def main() -> None:
  """Takes the step that each turn asks for."""
  turns.serve(Steps)


if __name__ == "__main__":
  main()
