"""Steps at which something is due."""

import math

import pytest

from gkd.training import periods


def test_a_period_of_0_is_never_due_and_nothing_is_due_at_the_start():
  assert [s for s in range(10) if periods.due(s, 3)] == [3, 6, 9]
  assert not any(periods.due(s, 0) for s in range(10))
  assert not any(periods.log_spaced(s, 0) for s in range(100))


@pytest.mark.parametrize("per_decade", [1, 2, 3, 4, 7, 10, 23])
def test_log_spaced_steps_are_the_rounded_powers(per_decade):
  powers = {
    math.floor(10 ** (k / per_decade) + 0.5) for k in range(3 * per_decade + 1)
  }
  found = {s for s in range(1001) if periods.log_spaced(s, per_decade)}
  assert found == powers
