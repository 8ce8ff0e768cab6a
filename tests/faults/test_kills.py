"""`kill -9` and the same command: the run ends as if nothing had happened.

A few moments of `make soak`.
"""

import random

import pytest

from tests.faults import soak


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
  """Scratch folder, teacher, and the run that nobody disturbed."""
  folder = tmp_path_factory.mktemp("kills")
  teacher = soak.make_teacher(folder)
  return folder, teacher, *soak.baseline(teacher, folder)


def test_a_run_that_is_killed_again_and_again_ends_bit_identical(scene):
  folder, teacher, alone, spent = scene
  rng = random.Random(0)
  moments = [
    # Early in the phase: this machine may be quicker now than when measured.
    {"phase": phase, "count": count, "delay": rng.uniform(0, 0.5) * seconds}
    for phase, count in (
      ("sample", 5),  # one save is done
      ("commit", 1),
      ("evaluate", 1),
      ("line", 2),
    )
    for seconds in [spent[phase][-1]]
  ]
  run = folder / "killed"
  assert soak.finish(moments, teacher, run, folder) == len(moments)
  assert soak.differences(alone, soak.fingerprint(run)) == []


def test_the_comparison_sees_a_difference(scene):
  _, _, alone, _ = scene
  for kind in ("checkpoints/00000012/", "predictions/", "samples/"):
    name = next(name for name in alone if name.startswith(kind))
    assert soak.differences(alone, {**alone, name: "other"}) == [name]
  fewer = {**alone, "metrics.jsonl": alone["metrics.jsonl"][:-1]}
  assert soak.differences(alone, fewer) == ["metrics.jsonl"]
