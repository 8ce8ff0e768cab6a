"""The peer in PyTorch minimises what gkd minimises: `make parity`."""

import jax
import numpy as np
import pytest

from benchmarks.peers import t5
from benchmarks.peers import t5_gkd
from benchmarks.peers import work
from gkd import trees
from gkd.losses.divergence import GeneralizedJSD
from gkd.losses.objective import Distillation
from gkd.models.t5 import T5Config
from gkd.models.t5 import encoder_decoder
from gkd.training import state as states
from gkd.training.step import TrainStep
from gkd.training.step import update_step
from gkd.types import Batch
from tests import tiny
from tests.benchmarks.test_peers import LIKE_T5_1_1

pytestmark = pytest.mark.parity

STUDENT = {
  "vocab_size": 40,
  "emb_dim": 24,
  "num_heads": 3,
  "num_encoder_layers": 2,
  "num_decoder_layers": 2,
  "head_dim": 5,
  "mlp_dim": 20,
  "mlp_activations": ("gelu", "linear"),
  "dropout_rate": 0.0,
}
TEACHER = STUDENT | {"emb_dim": 32, "num_encoder_layers": 1}


def make_batch() -> Batch:
  """Prompts of unequal length, targets that fill their rows."""
  random = np.random.default_rng(0)
  inputs = random.integers(2, 40, (4, 9)).astype(np.int32)
  inputs[1, 4:] = inputs[3, 7:] = 0
  targets = random.integers(2, 40, (4, 6)).astype(np.int32)
  return Batch(
    inputs=inputs,
    input_mask=inputs > 0,
    targets=targets,
    weights=np.ones(targets.shape, np.float32),
    rows=np.arange(4, dtype=np.int32),
    source=np.ones(4, np.int32),
  )


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_loss_and_gradient_norm_equal_gkds(torch, reference, beta):
  from benchmarks.peers import torch_gkd

  ours, params, theirs = {}, {}, {}
  for seed, (role, options) in enumerate(
    {"student": STUDENT, "teacher": TEACHER}.items()
  ):
    weights, theirs[role] = reference.make_model(options, seed)
    ours[role] = encoder_decoder(T5Config.from_size(options))
    params[role] = trees.unflatten(
      {name: w.astype(np.float32) for name, w in weights.items()}
    )
  batch = make_batch()
  plan = TrainStep(
    student=ours["student"],
    frozen={"teacher": ours["teacher"]},
    objective=Distillation(GeneralizedJSD(beta)),
    optimizer=tiny.adamw(total_steps=10),
  )
  student = jax.tree.map(jax.numpy.array, params["student"])
  state = states.create(student, plan.optimizer.transformation())
  frozen = {"teacher": params["teacher"]}
  _, means = update_step(plan, state, frozen, batch, np.int32(0))

  start = np.zeros((4, 1), np.int32)
  sequences = torch.tensor(np.concatenate([start, batch.targets], 1)).long()
  prompts = {
    "input_ids": torch.tensor(batch.inputs).long(),
    "attention_mask": torch.tensor(batch.input_mask).long(),
  }
  with torch.no_grad():
    log_p = torch_gkd.log_probs(theirs["teacher"], prompts, sequences)
  loss = torch_gkd.distillation_loss(
    theirs["student"], log_p, prompts, sequences, beta
  )
  loss.backward()
  squares = [w.grad.square().sum() for w in theirs["student"].parameters()]
  norm = torch.stack(squares).sum().sqrt()
  got = {"loss": loss.item(), "grad_norm": norm.item()}
  want = {name: float(means[name].compute()) for name in got}
  assert got == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("changes", [{}, LIKE_T5_1_1])
def test_programs_take_the_same_steps(transformers, monkeypatch, changes):
  from benchmarks.peers import torch_gkd

  monkeypatch.setitem(work.SIZES, "tiny", work.SIZES["tiny"] | changes)
  args = work.with_defaults(t5.parser().parse_args(["--size=tiny"]))
  args.threads, args.beta = 1, 0.1
  ours, theirs = (peer.Steps(args) for peer in (t5_gkd, torch_gkd))
  for _ in range(2):
    got, want = theirs.fixed(), ours.fixed()
    for name in ("loss", "grad_norm"):
      assert got[name] == pytest.approx(want[name], rel=1e-4)
  for steps in (ours, theirs):  # which assert that samples fill their rows
    assert steps.on_policy()["sample"]["wall"] > 0
