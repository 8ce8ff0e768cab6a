"""Values of axes in the table."""

import pytest

from gkd.experiments.grid import grid_results


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("0.001", 0.001),
    ("1e-05", 1e-05),
    (3, 3),
    ("1_1", "1_1"),
    ("007", "007"),
    ("nan", "nan"),
    ("true", "true"),
  ],
)
def test_only_what_json_has_as_a_number_becomes_one(name, value):
  assert grid_results.axis_value(name) == value
