"""The bench measures both kinds of steps of a run, and writes nothing."""

import pytest

from gkd.experiments import step_timing
from gkd.losses.objective import CrossEntropy
from gkd.types import UserError
from tests.tiny import LENGTHS
from tests.tiny import make_cache
from tests.tiny import make_run


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  return {"train": make_cache(tmp_path_factory.mktemp("bench") / "train")}


def test_times_of_both_kinds_of_steps_are_measured(tmp_path, caches):
  folder = tmp_path / "run"
  result = step_timing.measure(make_run(folder, caches), rounds=2)
  assert tuple(result["seconds"]) == step_timing.PHASES
  for kinds in (*result["seconds"].values(), result["ratio"]):
    for kind in ("wall", "cpu"):
      spread = kinds[kind]
      assert 0 < spread["min"] <= spread["median"] <= spread["max"]
  parts, whole = result["seconds"], result["seconds"]["on_policy_step"]["wall"]
  slowest = max(parts[x]["wall"]["min"] for x in ("sample", "update"))
  assert whole["min"] > slowest
  assert 1 <= result["sampled_length"] <= LENGTHS["targets"]
  assert (result["batch_size"], result["rounds"]) == (8, 2)
  assert result["peak_memory_bytes"] > 0
  assert "on-policy / fixed" in step_timing.describe(result)
  assert not folder.exists()


@pytest.mark.parametrize(
  ("changes", "rounds", "message"),
  [
    ({"objective": CrossEntropy(), "rollout": None}, 1, "a distillation run"),
    ({}, 0, "--rounds is 0"),
  ],
)
def test_what_cannot_be_compared_is_refused(
  changes, rounds, message, tmp_path, caches
):
  run = make_run(tmp_path, caches, **changes)
  with pytest.raises(UserError, match=message) as error:
    step_timing.measure(run, rounds=rounds)
  assert "\n" not in str(error.value)
