"""`kill -9` and the same command: the run ends as if nothing had happened.

A few moments of `make soak`.
"""

import random

import pytest

from tests.faults import fault_injection
from tests.faults import soak
from tests.faults.harness import Harness
from tests.faults.harness import differences


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
  return Harness(tmp_path_factory.mktemp("kills"), repeat=False)


def test_a_run_that_is_killed_again_and_again_ends_bit_identical(harness):
  rng = random.Random(0)
  moments = [
    # Early in the phase: this machine may be quicker now than when measured.
    {"phase": phase, "count": count, "delay": rng.uniform(0, 0.5) * seconds}
    for phase, count in (
      ("sample", 5),  # one save is done
      ("commit", 1),  # the next one
      ("evaluate", 1),
    )
    for seconds in [harness.seconds[phase][-1]]
  ]
  assert harness.finish("killed", moments) == len(moments)
  assert harness.differences("killed") == []


def test_the_comparison_sees_a_difference(harness):
  undisturbed = harness.undisturbed
  for kind in ("checkpoints/00000012/", "predictions/", "samples/"):
    name = next(name for name in undisturbed if name.startswith(kind))
    assert differences(undisturbed, {**undisturbed, name: "other"}) == [name]
  fewer = {**undisturbed, "metrics.jsonl": undisturbed["metrics.jsonl"][:-1]}
  assert differences(undisturbed, fewer) == ["metrics.jsonl"]


def test_moments_lie_within_their_phase_and_come_from_the_seed():
  seconds = {"sample": [0.5, 0.1]}
  drawn = [soak.draw("sample", seconds, random.Random(7)) for _ in range(2)]
  assert drawn[0] == drawn[1]
  rng = random.Random(0)
  for _ in range(50):
    moment = soak.draw("sample", seconds, rng)
    assert 0 <= moment["delay"] <= seconds["sample"][moment["count"] - 1]


def test_the_summary_counts_what_differs():
  trials = [
    {"phase": "line", "killed": 1, "differs": []},
    {"phase": "line", "killed": 1, "differs": ["metrics.jsonl"]},
    {"phase": "data", "killed": 0, "differs": []},
  ]
  found = soak.summary(trials)
  assert (found["kills"], found["ended_identical"]) == (2, 1)
  assert found["came_too_late"] == 1
  assert found["by_phase"]["line"] == {"kills": 2, "ended_identical": 1}


@pytest.mark.parametrize(
  "change",
  [
    {"exit_code": 1},
    {"stderr": ["Traceback (most recent call last):"]},
    {"said": None},
    {"again": "with DIFFERENCES in ['metrics.jsonl']"},
  ],
)
def test_a_fault_that_is_dealt_with_badly_is_seen(change):
  row = {"exit_code": 2, "said": "no", "stderr": [], "again": "bit-identical"}
  assert fault_injection.verdict(row, 2) is None
  assert fault_injection.verdict(row | change, 2)
