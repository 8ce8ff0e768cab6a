"""The bench measures all phases of a run; what it says adds up."""

import jax
import numpy as np
import pytest

from gkd.experiments.bench import ceilings
from gkd.experiments.bench import step_timing
from gkd.losses.divergence import ReverseKL
from gkd.losses.objective import CrossEntropy
from gkd.losses.objective import Distillation
from gkd.losses.policy import rewarded
from gkd.training.rollout import Rollout
from gkd.training.scoring import Scoring
from gkd.types import UserError
from tests.tiny import LENGTHS
from tests.tiny import STUDENT
from tests.tiny import make_evaluation
from tests.tiny import make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("run")


def brevity(prompts, completions, references):
  return [-len(text) for text in completions]


@pytest.fixture(scope="module")
def result(folder, caches):
  jax.clear_caches()  # other tests may have compiled the same update
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(ceilings._SIZES, "cpu", (128, 1 << 20))
    run = make_run(
      *(folder, caches),
      objective=rewarded(0.5, Distillation(ReverseKL())),
      rollout=Rollout(0.5),
      scoring=Scoring(reward=brevity, baseline="batch"),
      evaluations=[make_evaluation(caches["validation"])],
    )
    return step_timing.measure(
      run, 2, built=np.array([1e3, 2e3]), profile=str(folder / "profile")
    )


def test_every_phase_has_times_and_a_first_call(result):
  assert list(result["seconds"]) == list(step_timing.PHASES)
  assert result["start_up"]["first_calls"].keys() == result["seconds"].keys()
  start = [result["start_up"][name] for name in ("import", "build")]
  for times in (*result["seconds"].values(), *start, result["ratio"]):
    for kind in ("wall", "cpu"):
      spread = times[kind]
      assert 0 < spread["min"] <= spread["median"] <= spread["max"]


def test_whole_steps_are_longer_than_their_parts(result):
  seconds = {name: x["cpu"] for name, x in result["seconds"].items()}
  parts = seconds["sample"]["min"] + seconds["update"]["min"]
  assert seconds["on_policy_step"]["max"] > parts / 2
  build = result["start_up"]["build"]
  assert build["wall"]["min"] > 1e3
  assert build["cpu"]["min"] > 2e3


def test_programs_compile_in_the_first_call_of_their_phase(result):
  first = result["start_up"]["first_calls"]
  assert first["update"]["programs"]["update_step"]["count"] == 1
  assert first["sample"]["programs"]["_generate"]["count"] == 1
  assert "_score" in first["score"]["programs"]
  for name in step_timing.STEPS:
    assert not {"update_step", "_generate"} & first[name]["programs"].keys()


def test_rates_follow_from_tokens_flops_and_seconds(result):
  wall = {n: x["wall"]["median"] for n, x in result["seconds"].items()}
  assert 1 <= result["tokens_per_row"] <= LENGTHS["targets"]
  tokens = 8 * result["tokens_per_row"]
  for name in ("sample", "score", "update", "on_policy_step"):
    speed = result["tokens_per_second"][name]
    assert speed == pytest.approx(tokens / wall[name])
  limit, programs = result["ceilings"], result["programs"]
  share = programs["score"]["flops"] / wall["score"] / limit["flops"]
  assert result["utilization"]["score"] == pytest.approx(share)
  assert programs["update"]["flops"] > programs["score"]["flops"]
  assert limit["dtype"] == "float32"


def test_a_token_reads_the_weights_of_the_decoder(result):
  # Kernels of self-attention, of queries and outputs of cross-attention, of the
  # gated MLP, the head, and the relative biases of two heads, in float32.
  head = 16 * STUDENT.config.vocab_size
  weights = 4 * (6 * 16 * 16 + 3 * 16 * 32 + head + 2 * 32)
  assert result["programs"]["sample"]["token"]["bytes"] == weights


def test_memory_is_that_of_the_programs_where_devices_say_nothing(result):
  programs = result["programs"].values()
  peaks = [program["bytes"]["peak"] for program in programs]
  assert result["memory_bytes"]["device"] == max(peaks) > 0
  assert result["memory_bytes"]["host"] > max(peaks)


def test_a_profile_is_written(result, folder):
  assert list(folder.glob("profile/plugins/profile/*/*.xplane.pb"))


@pytest.mark.parametrize(
  ("changes", "arguments", "message"),
  [
    ({}, {"rounds": 0}, "--rounds is 0; expected at least 1"),
    ({}, {"phases": ["uptade"]}, "no such phase; give .*update"),
    ({}, {"phases": ["evaluation"]}, "'evaluation' but this run has none"),
    (
      {"objective": CrossEntropy(), "rollout": None},
      {"phases": ["sample"]},
      "this run distils nothing; give input_pipeline, score",
    ),
  ],
)
def test_what_cannot_be_timed_is_refused(
  changes, arguments, message, tmp_path, caches
):
  run = make_run(tmp_path, caches, **changes)
  with pytest.raises(UserError, match=message) as error:
    step_timing.measure(run, **arguments)
  assert "\n" not in str(error.value)
