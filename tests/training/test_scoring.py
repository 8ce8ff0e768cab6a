"""Rewards between rollout and update; the ends of α; shares of the gradient."""

import dataclasses
import json

import numpy as np
import pytest

from gkd.data.loader import Loader
from gkd.evaluation.metric_infos import metric_infos
from gkd.losses.divergence import ReverseKL
from gkd.losses.minillm import MiniLLM
from gkd.losses.objective import Distillation
from gkd.losses.policy import SampledTokenKL
from gkd.losses.policy import rewarded
from gkd.rewards.text import ExactAnswer
from gkd.sampling.params import SamplingParams
from gkd.sampling.two_models import Mixture
from gkd.training import loop
from gkd.training.rollout import Rollout
from gkd.training.scoring import Scoring
from gkd.training.scoring import advantages
from gkd.types import Model
from gkd.types import UserError
from tests import tiny

NAN = np.nan
OWN = Distillation(ReverseKL())


def brevity(prompts, completions, references):
  assert all(prompt.endswith("=") for prompt in prompts)
  assert all(reference.isdigit() for reference in references)
  return [-len(text) for text in completions]


def make_run(folder, caches, alpha, samples=4, **changes):
  cache, lengths = caches["train"], tiny.LENGTHS
  fields = {
    "objective": rewarded(alpha, OWN),
    "rollout": Rollout(1.0),
    "scoring": Scoring(reward=brevity),
    "train_steps": 2,
    "loader": Loader(
      cache, batch_size=8, lengths=lengths, seed=0, samples_per_prompt=samples
    ),
  }
  return tiny.make_run(folder, caches, **fields | changes)


@pytest.mark.parametrize(
  ("baseline", "expected"),
  [
    ("none", [1, 3, 5, 0, 2, 4]),
    ("leave_one_out", [-2, 2, 5, 0, -2, 2]),
    ("batch", [1 - 14 / 4, 0, 5 - 10 / 4, 0, 2 - 13 / 4, 4 - 11 / 4]),
  ],
)
def test_advantages_leave_out_rows_that_have_no_reward(baseline, expected):
  found = advantages(np.array([1, 3, 5, NAN, 2, 4]), baseline, 2)
  np.testing.assert_allclose(found, expected)


def test_a_run_is_rewarded_for_its_own_texts(tmp_path, caches):
  """Also with gradient shares, in samples, and in the evaluation."""
  evaluation = tiny.make_evaluation(
    caches["validation"],
    reward=ExactAnswer(),
    score_teacher=False,
    sequence_kl=False,
  )
  run = make_run(
    tmp_path,
    caches,
    0.5,
    sample=2,
    gradient_share=2,
    evaluations=(evaluation,),
  )
  loop.train(run)
  first, last = tiny.lines(tmp_path)
  file = tmp_path / "samples" / "step_00000002.jsonl"
  rows = [json.loads(line) for line in file.read_text().splitlines()]
  rewards = [row["reward"] for row in rows]
  assert rewards == [-len(row["text"]) for row in rows]
  assert last["train/reward"] == pytest.approx(np.mean(rewards))
  assert last["train/reward_variance"] == pytest.approx(np.var(rewards))
  for group in (rows[:4], rows[4:]):
    assert len({row["prompt"] for row in group}) == 1
    assert len({row["text"] for row in group}) > 1
  shares = {n: x for n, x in last.items() if "gradient_share" in n}
  assert {n.rpartition("/")[2] for n in shares} == {"distillation", "policy"}
  assert sum(shares.values()) == pytest.approx(1)
  assert min(shares.values()) > 0
  assert not any("gradient_share" in name for name in first)
  assert last["time/reward_seconds"] > 0
  accuracy = last["eval/sums/accuracy"]
  assert last["eval/sums/reward"] == pytest.approx(accuracy / 100)
  info = metric_infos([evaluation], run.roles)["eval/sums/reward"]
  assert (info.metric, info.direction) == ("reward", "max")


def test_alpha_1_is_on_policy_gkd_to_the_bit_and_asks_no_reward(
  tmp_path, caches
):
  def never(prompts, completions, references):
    raise AssertionError

  make = {
    "rewarded": {"scoring": Scoring(reward=never)},
    "gkd": {"objective": OWN, "scoring": None},
  }
  states = [
    loop.train(make_run(tmp_path / name, caches, 1.0, **changes))
    for name, changes in make.items()
  ]
  tiny.assert_identical(*states)


def test_alpha_0_needs_no_teacher(tmp_path, caches):
  run = make_run(tmp_path, caches, 0.0, teacher=None)
  assert not run.train_step.frozen
  with pytest.raises(UserError, match="with a model 'teacher' but there is"):
    make_run(tmp_path, caches, 0.1, teacher=None)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"scoring": None}, "the objective needs a reward and there is none"),
    ({"samples": 1}, "BASELINE is 'leave_one_out' but SAMPLES_PER_PROMPT is 1"),
    ({"rollout": Rollout(0.0)}, "SAMPLES_PER_PROMPT is 4 but the student writ"),
    (
      {"rollout": Rollout(1.0, decoding=SamplingParams(temperature=0.5))},
      r"texts are drawn at temperature 0\.5, but the objective is of",
    ),
    (
      {"reduction": "sum"},
      "REDUCTION is 'sum', but the policy gradient is a mean over sequences",
    ),
    (
      {"rollout": Rollout(0.5), "objective": SampledTokenKL(), "scoring": None},
      r"STUDENT_DATA_FRACTION is 0\.5, but the objective learns nothing from",
    ),
    (
      {"rollout": None, "samples": 1, "objective": SampledTokenKL()},
      "learns from text that the student draws, but STUDENT_DATA_FRACTION is",
    ),
  ],
)
def test_a_reward_that_would_do_nothing_is_refused(
  tmp_path, caches, changes, message
):
  with pytest.raises(UserError, match=message) as error:
    make_run(tmp_path, caches, 0.5, **changes)
  assert "\n" not in str(error.value)


def test_text_is_weighed_by_what_it_was_drawn_from(tmp_path, caches):
  """Student and teacher are one, and their padding id has a share of 1/V."""
  run = make_run(
    tmp_path,
    caches,
    0.5,
    objective=MiniLLM(ratio_clip=None),
    rollout=Rollout(1.0, proposal=Mixture(0.5)),
    scoring=None,
    train_steps=1,
  )
  one = Model(tiny.TEACHER, tiny.parameters(tiny.TEACHER, 1))  # no dropout
  loop.train(dataclasses.replace(run, roles={"student": one, "teacher": one}))
  (line,) = tiny.lines(tmp_path)
  assert line["train/importance_weight"] == pytest.approx(1, abs=1e-4)


def test_settings_of_a_reward_are_checked():
  with pytest.raises(UserError, match="BASELINE is 'mean'; expected one of"):
    Scoring(reward=brevity, baseline="mean")
  with pytest.raises(UserError, match="REWARD_SCALE is 0; expected a number"):
    Scoring(reward=brevity, scale=0)
