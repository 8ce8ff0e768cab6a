"""The profile of some steps of a run, and what a resumed run leaves of it."""

import re

import jax
import pytest

from gkd.training import loop
from gkd.training.profiling import Profiler
from tests import tiny


def test_a_profile_has_its_steps_and_their_phases_by_name(tmp_path, caches):
  run = tiny.make_run(tmp_path, caches, train_steps=4, report=4, checkpoint=0)
  loop.train(run, profile=range(3, 5))
  plugin = tmp_path / "tensorboard/plugins/profile"
  (trace,) = plugin.glob("*/*.xplane.pb")
  content = trace.read_bytes()
  for name in (b"step_num", b"sample", b"update"):
    assert name in content
  planes = jax.profiler.ProfileData.from_file(str(trace)).planes
  events = [event for p in planes for line in p.lines for event in line.events]
  steps = [dict(e.stats)["step_num"] for e in events if e.name == "train"]
  assert sorted(steps) == [3, 4]
  assert sum(event.name == "data" for event in events) == 2


@pytest.mark.parametrize(
  ("start", "waits", "message"),
  [
    (0, [2, 6], "^$"),
    (4, [4, 6], "steps 3 to 4 are done since an earlier start; .*: 5 to 6"),
    (6, [], "steps 3 to 6 are done .*: none"),
  ],
)
def test_steps_that_are_done_are_said_and_not_waited_for(
  tmp_path, caplog, start, waits, message
):
  with Profiler(range(3, 7), tmp_path, start) as profiler:
    assert [step for step in range(9) if profiler.waits(step)] == waits
  assert re.search(message, caplog.text)
