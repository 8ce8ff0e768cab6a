"""Numbers on axes read as one would write them."""

import pytest

from gkd.report.ticks import tick


@pytest.mark.parametrize(
  ("ticks", "words"),
  [
    ([0, 0.25, 0.5], ["0", "0.25", "0.50"]),
    ([15, 30, 45], ["15", "30", "45"]),
    ([2.5, 5, 7.5], ["2.5", "5.0", "7.5"]),
    ([0, 2000, 4000], ["0", "2,000", "4,000"]),
    ([0, 5000, 10000], ["0", "5k", "10k"]),
    ([0, 250000, 1000000], ["0", "0.25M", "1.00M"]),
    ([0, 1e-4, 3.5e-4], ["0", "1e-4", "3.5e-4"]),
    ([0.0495, 0.051], ["0.0495", "0.0510"]),
    ([-0.5, 0, 0.5], ["-0.5", "0", "0.5"]),
    ([1e18, 2e18], ["1e18", "2e18"]),
  ],
)
def test_ticks_have_the_digits_that_tell_them_apart(ticks, words):
  assert [tick(value, ticks) for value in ticks] == words


@pytest.mark.parametrize(
  ("value", "words"),
  [(0.01, "0.01"), (1, "1"), (1000, "1,000"), (1e5, "100k"), (1e-5, "1e-5")],
)
def test_powers_of_ten_stand_alone(value, words):
  assert tick(value, [value]) == words
