"""Settings of the GKD paper: the values of its tables, and shapes at full size.

Source: GKD (arXiv 2306.13649), section A.4, Tables A.1 to A.4, and Fig. 5.
"""

import jax
import pytest

from gkd.config import configuration
from gkd.config.command_records import TrainConfig
from gkd.losses import divergence
from gkd.losses import policy
from gkd.losses.objective import Distillation
from gkd.plan import programs
from gkd.rewards.entailment import Entailment
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch

SAMPLING = SamplingParams(temperature=1.0)
GREEDY = SamplingParams(temperature=0.0)
PATHS = (
  *("MODEL_DIR=run", "INITIAL_CHECKPOINT_PATH=student"),
  "TEACHER_CHECKPOINT_PATH=teacher",
)
REWARDED = ("REWARD_CHECKPOINT_PATH=nli", "SCAN_LAYERS=True")
XL = 2048  # emb_dim


def build(name, *bindings, methods=()):
  files = [f"paper/{name}.gin", *(f"methods/{m}.gin" for m in methods)]
  configuration.load(files, [*PATHS, *bindings])
  return configuration.build(TrainConfig)


# Steps, batch, rate, warm-up, cooldown, dropout, lengths, teacher temperature,
# divergence of the best results, decoding, where it is scored.
@pytest.mark.parametrize(
  ("name", "numbers", "lengths", "temperature", "chosen", "decoding", "split"),
  [
    (
      *("xsum", (40000, 32, 3e-4, 2000, 10000, 0.0), (1024, 64), 1.0),
      *(divergence.ForwardKL(), [GREEDY, SAMPLING], "xsum/validation"),
    ),
    (
      *("gsm8k", (40000, 32, 3e-4, 2000, 10000, 0.05), (512, 320), 0.1),
      *(divergence.ForwardKL(), [GREEDY], "gsm8k_4shot/test"),
    ),
    (
      *("wmt14_ende", (100000, 32, 3e-4, 5000, 0, 0.0), (80, 80), 1.0),
      *(divergence.GeneralizedJSD(0.1), [BeamSearch(4, 0.6)]),
      "wmt14_ende/validation",
    ),
    (
      *("flan", (50000, 128, 1e-4, 0, 0, 0.0), (2048, 256), 1.0),
      *(divergence.ReverseKL(), [GREEDY], "mmlu/test bbh/test"),
    ),
  ],
)
def test_settings_are_the_papers(
  name, numbers, lengths, temperature, chosen, decoding, split
):
  built = build(name)
  schedule = built.optimizer.schedule
  assert numbers == (
    *(built.train_steps, built.batch_size, schedule.learning_rate),
    *(schedule.warmup_steps, schedule.cooldown_steps),
    built.student.model.config.dropout_rate,
  )
  assert tuple(built.data.lengths.values()) == lengths
  assert built.objective == Distillation(
    chosen, teacher_temperature=temperature
  )
  assert built.rollout.student_fraction == 1.0
  assert built.rollout.decoding == SAMPLING
  assert built.reduction == "sequence"
  assert built.teacher.model.config.emb_dim == XL
  assert built.evaluation.strategies == decoding
  splits = [f"{data.task}/{data.split}" for data in built.evaluation.splits]
  assert " ".join(splits) == split
  assert built.data.overlong == ("truncate", "truncate_left")[name == "gsm8k"]


def test_instruction_tuning_is_scored_on_benchmarks_of_another_module():
  built = build("flan")
  assert built.data.module == "gkd.tasks.flan"
  for data in built.evaluation.splits:
    assert data.module == "gkd.tasks.benchmarks"
    assert data.overlong == "truncate_left"


def test_rl_rewards_entailment_beside_the_distillation_of_xsum():
  built = build("xsum_rl", *REWARDED)
  distillation = Distillation(divergence.GeneralizedJSD(0.9))
  assert built.objective == policy.rewarded(0.25, distillation)
  assert built.scoring.reward.checkpoint == "nli"
  assert built.scoring.reward.prompt_prefix == "summarize: "
  assert built.scoring.reward.length == Entailment.length
  built = build("xsum_rl", *REWARDED, methods=["rlef"])
  assert built.compared_with["anchor"].checkpoint == "student"


@pytest.mark.parametrize("name", ["xsum", "gsm8k", "wmt14_ende", "flan"])
@pytest.mark.parametrize(
  "method", ["seqkd", "supervised_kd", "imitkd", "f_distill"]
)
def test_baselines_of_the_paper_come_after_its_settings(name, method):
  built, own = build(name, methods=[method]), build(name)
  assert built.train_steps == own.train_steps
  assert (built.objective, built.rollout) != (own.objective, own.rollout)


# One size of the student each; XSum's step is in that of RL.
@pytest.mark.parametrize(
  ("name", "student", "emb_dim", "bindings"),
  [
    ("gsm8k", "FLAN_T5_SMALL", 512, ()),
    ("wmt14_ende", "T5_1_1_LARGE", 1024, ()),
    ("flan", "FLAN_T5_BASE", 768, ()),
    ("xsum_rl", "T5_1_1_BASE", 768, REWARDED[:1]),
  ],
)
def test_a_step_of_full_size_has_its_shapes(
  name, student, emb_dim, bindings, monkeypatch
):
  """The programs of a run are traced on shapes; nothing is computed."""
  built = build(
    name, f"STUDENT_MODEL=%{student}", "SCAN_LAYERS=True", *bindings
  )
  rows, length = built.batch_size, built.data.lengths["targets"]
  monkeypatch.setattr(
    programs, "_program", lambda name, traced, *_: (name, traced.out_info)
  )
  mesh = built.mesh(jax.devices()[:1])
  models = programs.models(built, mesh)
  compiled = programs.compiled(built, models, mesh)
  found = {program[0]: program[1] for program in compiled}
  assert found.keys() == {"sample", "update", "save"}
  assert found["sample"].tokens.shape == (rows, length)
  state, metrics = found["update"]
  embedding = state.params["token_embedder"]["embedding"]
  assert embedding.shape == (32128, emb_dim)
  (packed,) = jax.tree.leaves(metrics)
  assert packed.shape == (2, len(metrics))
