"""An on-policy distillation step of T5 in PyTorch and transformers, timed.

What one would write without `gkd`: the student's `generate` with the model's
own distribution, the teacher without gradient, JSD(beta) by logaddexp, AdamW.
Models of T5 1.1's sizes and random weights; every row is sampled to its full
length. `gkd_step.py` beside this file times the same work.

In bfloat16 the student trains by autocast on float32 parameters, and samples
from a bfloat16 copy that each step refreshes; the teacher is bfloat16.

Usage:
  python -m benchmarks.peers.torch_gkd --student=small --teacher=base \
    --dtype=bfloat16 --output=peer.json
"""

import argparse
import copy
import json
import math
from pathlib import Path
import statistics
import time

import torch
import transformers

from benchmarks.peers import options

# d_model, d_kv, num_heads, num_layers, d_ff
SIZES = {
  "tiny": (64, 16, 4, 2, 128),
  "small": (512, 64, 6, 8, 1024),
  "base": (768, 64, 12, 12, 2048),
  "large": (1024, 64, 16, 24, 2816),
}
PHASES = ("sample", "update", "step")
_FIELDS = ("d_model", "d_kv", "num_heads", "num_layers", "d_ff")


def make_model(size: str, dropout: float) -> torch.nn.Module:
  """A T5 1.1 with random weights and a head of its own."""
  config = transformers.T5Config(
    **dict(zip(_FIELDS, SIZES[size], strict=True)),
    vocab_size=options.ROWS,
    feed_forward_proj="gated-gelu",
    dropout_rate=dropout,
    tie_word_embeddings=False,
    decoder_start_token_id=0,
    eos_token_id=None,
  )
  model = transformers.T5ForConditionalGeneration(config)
  # transformers 5 ties the head of every T5 that is built from a config.
  config.tie_word_embeddings = False
  head = torch.randn_like(model.shared.weight) / math.sqrt(config.d_model)
  model.lm_head.weight = torch.nn.Parameter(head)
  return model


def generalized_jsd(
  log_p: torch.Tensor, log_q: torch.Tensor, beta: float
) -> torch.Tensor:
  """JSD: beta KL(p||m) + (1-beta) KL(q||m), m = beta p + (1-beta) q."""
  log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
  forward = (log_p.exp() * (log_p - log_m)).sum(-1)
  reverse = (log_q.exp() * (log_q - log_m)).sum(-1)
  return beta * forward + (1 - beta) * reverse


def distillation_loss(
  student: torch.nn.Module,
  teacher: torch.nn.Module,
  prompts: dict[str, torch.Tensor],
  sequences: torch.Tensor,
  beta: float,
) -> torch.Tensor:
  """Mean JSD over the tokens of full rows [B, 1 + T], start id first."""
  prompts = prompts | {"decoder_input_ids": sequences[:, :-1]}
  with torch.no_grad():
    log_p = teacher(**prompts).logits.float().log_softmax(-1)
  log_q = student(**prompts).logits.float().log_softmax(-1)
  return generalized_jsd(log_p, log_q, beta).mean()


class Step:
  """Both halves of a step, with the models and optimizer they work on."""

  def __init__(self, args: argparse.Namespace):
    self.args = args
    self.device = "cuda" if torch.cuda.is_available() else "cpu"
    self.autocast = torch.autocast(
      self.device, torch.bfloat16, enabled=args.dtype == "bfloat16"
    )
    dtype = getattr(torch, args.dtype)
    with torch.device(self.device):
      self.student = make_model(args.student, args.dropout)
      self.teacher = make_model(args.teacher, 0.0).to(dtype).eval()
    self.sampler = self.student
    if dtype != torch.float32:
      self.sampler = copy.deepcopy(self.student).to(dtype)
    self.optimizer = torch.optim.AdamW(
      self.student.parameters(),
      lr=1e-4,
      weight_decay=0.0,
      fused=self.device == "cuda",
    )

  def prompts(self) -> dict[str, torch.Tensor]:
    """Random prompts without padding."""
    shape = (self.args.batch_size, self.args.input_length)
    ids = torch.randint(2, options.ROWS, shape, device=self.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

  def sample(self, prompts: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sequences of the student [B, 1 + T]; no id ends one."""
    if self.sampler is not self.student:
      with torch.no_grad():
        torch._foreach_copy_(
          list(self.sampler.parameters()), list(self.student.parameters())
        )
    self.sampler.eval()
    return self.sampler.generate(
      **prompts,
      do_sample=True,
      top_k=0,
      max_new_tokens=self.args.target_length,
      cache_implementation=self.args.cache,
    )

  def update(
    self, prompts: dict[str, torch.Tensor], sequences: torch.Tensor
  ) -> torch.Tensor:
    """The loss of one optimizer step."""
    self.student.train()
    self.optimizer.zero_grad(set_to_none=True)
    with self.autocast:
      loss = distillation_loss(
        self.student, self.teacher, prompts, sequences, self.args.beta
      )
    loss.backward()
    self.optimizer.step()
    return loss.detach()

  def timed(self, function, *args):
    """The result and the seconds until the device has it."""
    start = time.perf_counter()
    result = function(*args)
    if self.device == "cuda":
      torch.cuda.synchronize()
    return result, time.perf_counter() - start


def measure(args: argparse.Namespace) -> dict:
  """Seconds of sampling, update and both, over rounds after a warm-up."""
  torch.set_float32_matmul_precision("high" if args.tf32 else "highest")
  torch.manual_seed(0)
  step = Step(args)
  rounds, lengths = [], set()
  for _ in range(args.warm_up + args.rounds):
    prompts = step.prompts()
    sequences, sampling = step.timed(step.sample, prompts)
    loss, updating = step.timed(step.update, prompts, sequences)
    rounds.append((sampling, updating, sampling + updating))
    lengths.add(sequences.shape[1] - 1)
  assert torch.isfinite(loss), loss
  assert lengths == {args.target_length}, lengths
  columns = zip(*rounds[args.warm_up :], strict=True)
  seconds = {
    name: {"min": min(c), "median": statistics.median(c), "max": max(c)}
    for name, c in zip(PHASES, columns, strict=True)
  }
  cuda = step.device == "cuda"
  return vars(args) | {
    "seconds": seconds,
    "first_step_seconds": rounds[0][-1],
    "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else None,
    "attention": step.student.config._attn_implementation,
    "hardware": torch.cuda.get_device_name() if cuda else "cpu",
    "versions": f"torch {torch.__version__},"
    f" transformers {transformers.__version__}",
  }


def parser() -> argparse.ArgumentParser:
  """The shared options and those of PyTorch."""
  flags = options.parser(__doc__)
  flags.add_argument(
    "--cache",
    choices=("dynamic", "static"),
    default="dynamic",
    help="static: transformers compiles the decoding step on a GPU",
  )
  flags.add_argument("--no_tf32", dest="tf32", action="store_false")
  flags.add_argument("--warm_up", type=int, default=2, help="uncounted rounds")
  return flags


def main() -> None:
  """Measures, prints and writes the results."""
  args = parser().parse_args()
  text = json.dumps(measure(args), indent=2) + "\n"
  Path(args.output).write_text(text, encoding="utf-8")
  print(text)


if __name__ == "__main__":
  main()
