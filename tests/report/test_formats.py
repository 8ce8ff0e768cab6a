"""Numbers read as one says them."""

import numpy as np
import pytest

from gkd.report import formats


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (0, "0"),
    (1234567, "1,234,567"),
    (1234.6, "1,235"),
    (51.239, "51.24"),
    (0.00012345, "0.0001234"),
    (True, "–"),
  ],
)
def test_number_has_four_digits(value, text):
  assert formats.number(value) == text


@pytest.mark.parametrize(
  ("seconds", "text"),
  [(12.34, "12.3 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_duration_reads_as_one_says_it(seconds, text):
  assert formats.duration(seconds) == text


def test_spread_is_the_sample_standard_deviation():
  values = [51.0, 52.5, 54.3]
  mean, deviation = map(float, formats.spread(values).split(" ± "))
  assert mean == pytest.approx(np.mean(values), abs=0.005)
  assert deviation == pytest.approx(np.std(values, ddof=1), abs=0.05)
  assert formats.spread(values, 1) == "52.6 ± 1.7"
  assert formats.spread([3.0, 3.0], 2) == "3.00"
  # A deviation of 0.00 would say that all are equal.
  assert formats.spread([0.148, 0.152], 2) == "0.150 ± 0.003"
  assert formats.spread([0.3, 0.3 + 1e-12], 2) == "0.3000 ± 0.0000"
  assert formats.spread([]) == "–"


def test_interval_has_the_digits_of_its_width():
  assert formats.interval(51.26, 49.0, 53.111) == "51.3 [49.0, 53.1]"
  assert formats.interval(5.0, float("nan"), 6.0, 1) == "5.0"


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (None, "–"),
    (0.00003, "3e-05"),
    ("ab" * 32, "abababababab…"),
    ([1, "a"], "1, a"),
    (True, "True"),
  ],
)
def test_setting_is_shown_with_every_digit(value, text):
  assert formats.setting(value) == text
