"""Detectors on synthetic curves, with known breaks and none.

2 % noise, as evaluations on some hundred prompts have it; 500 seeds at once.
"""

import numpy as np
import pytest

from gkd.training import departure
from gkd.training.departure import Series

SEEDS = 500
STEPS = np.unique(np.round(np.logspace(1, 4, 24)))
X = np.log(STEPS)
BREAK = 14  # index of the last step on the line


def curves(change=0.0, floor=0.0, noise=0.02):
  """[SEEDS, 24] values of step^-0.3, whose slope changes after BREAK."""
  log_values = 1 - 0.3 * X + change * np.maximum(X - X[BREAK], 0)
  scatter = np.random.default_rng(0).normal(size=(SEEDS, len(X)))
  return (np.exp(log_values) + floor) * np.exp(noise * scatter)


def first_alarms(values, trained=None, **thresholds):
  """Index of the first alarm of each seed; -1 for none."""
  trained = np.full_like(values, np.nan) if trained is None else trained
  steps = STEPS[: values.shape[-1]]
  series = Series(steps, values, trained, np.zeros_like(values))
  found = departure.scores(series, consecutive=2)
  raised = departure.alarms(found, thresholds, consecutive=2)
  return np.where(raised.any(-1), raised.argmax(-1), -1)


DETECTORS = [{"z": 3.0}, {"delta_bic": 8.0}]


@pytest.mark.parametrize("thresholds", DETECTORS)
@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_a_power_law_raises_at_most_two_percent_false_alarms(thresholds, noise):
  raised = first_alarms(curves(noise=noise), **thresholds) >= 0
  assert raised.mean() <= 0.02


@pytest.mark.parametrize("thresholds", DETECTORS)
def test_an_upward_break_is_found_within_four_evaluations(thresholds):
  """98 % of them, the second of two consecutive points included."""
  found = first_alarms(curves(change=0.4), **thresholds)
  assert np.mean((found > BREAK) & (found <= BREAK + 4)) >= 0.98


@pytest.mark.parametrize("thresholds", DETECTORS)
def test_a_downward_break_is_no_departure(thresholds):
  assert np.mean(first_alarms(curves(change=-0.4), **thresholds) >= 0) <= 0.02


def test_levelling_off_without_a_gap_is_no_alarm():
  """A student too small for its teacher leaves the line on fresh data too."""
  held_out = curves(floor=0.3)
  rng = np.random.default_rng(1)
  trained = held_out * np.exp(0.03 * rng.normal(size=held_out.shape))
  assert np.mean(first_alarms(held_out, z=3.0) >= 0) > 0.1
  assert np.mean(first_alarms(held_out, delta_bic=8.0) >= 0) > 0.9
  thresholds = {"delta_bic": 8.0, "gap_growth": 1.2}
  assert not np.any(first_alarms(held_out, trained, **thresholds) >= 0)


def test_memorised_texts_open_a_gap_whatever_the_first_ratio():
  """Texts that the teacher did not write are further from the student."""
  found = first_alarms(curves(change=0.4), 3 * curves(noise=0), gap_growth=1.2)
  assert np.mean((found > BREAK) & (found <= BREAK + 4)) >= 0.98


def test_what_is_memorised_does_not_reach_held_out_prompts():
  """By one detector at its default threshold; at most 1 % without a break."""
  law, late = curves(noise=0)[0], np.exp(-2.0 * np.maximum(X - X[BREAK], 0))
  held_out = curves(change=0.4)
  found = first_alarms(held_out, law * late, memorised=0.8)
  assert np.mean((found > BREAK) & (found <= BREAK + 4)) >= 0.98
  raised = first_alarms(curves(noise=0.01), law, memorised=0.8) >= 0
  assert raised.mean() <= 0.01


def test_where_the_student_learns_no_more_nothing_is_memorised():
  flat = 1 + 0.02 * np.random.default_rng(0).normal(size=(2, SEEDS, len(X)))
  assert np.mean(first_alarms(*flat, memorised=0.8) >= 0) <= 0.01


def test_no_repeats_no_alarm():
  raised = first_alarms(curves(change=0.4), z=3.0, repeats=1.0) >= 0
  assert not raised.any()


def test_the_fit_recovers_the_law_and_its_interval():
  """One outlier of twelve moves it little; 95 % lie within 2.2 deviations."""
  values = curves()
  fit = departure.fit_power_law(STEPS[:12], values[:, :12])
  assert abs(np.mean(fit.slope) + 0.3) < 0.002
  assert abs(np.mean(fit.intercept) - 1) < 0.01
  expected, deviation = fit.predict(STEPS[12:13])
  z = (np.log(values[:, 12:13]) - expected) / deviation
  assert 0.92 <= np.mean(np.abs(z) < 2.2) <= 0.98
  values[:, 0] *= 2
  bent = departure.fit_power_law(STEPS[:12], values[:, :12])
  assert abs(np.mean(bent.slope) + 0.3) < 0.03


def test_a_change_point_is_where_the_slope_changes():
  found = departure.change_point(STEPS, curves(change=0.4))
  assert np.mean(abs(found.knot - BREAK) <= 1) >= 0.95
  assert abs(np.mean(found.slope_change) - 0.4) < 0.02
  assert np.mean(found.delta_bic > 6) == 1


def test_scores_are_those_of_the_evaluations_so_far():
  """What is computed at the end equals what was known at the time."""
  values = curves(change=0.4)[:2]
  series = Series(STEPS, values, curves()[2:4], values)
  whole = departure.scores(series, 2)
  past = departure.scores(Series(*(part[..., :17] for part in series)), 2)
  for name, expected in past.items():
    np.testing.assert_array_equal(whole[name][..., :17], expected)


def test_infinite_and_missing_values_raise_nothing():
  values = curves(change=0.4)[:1]
  values[0, 3] = np.inf
  trained = np.full_like(values, np.nan)
  assert first_alarms(values, trained, gap_growth=1.0)[0] == -1
  assert first_alarms(values[:, :9], z=-9.0)[0] == -1  # too few evaluations


def test_a_straight_line_is_no_evidence_of_a_bend():
  steps = np.round(np.logspace(1, 4, 24))
  noise = np.random.default_rng(0).normal(0, 0.02, (200, 24))
  found = departure.bends(steps, 3 * steps**-0.4 * np.exp(noise))[:, 8:]
  assert np.mean(found > 0) < 0.1  # of the noise; 0.5 if signs were mixed
