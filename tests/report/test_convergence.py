"""Power laws of arms on log-log axes, of synthetic curves."""

import dataclasses

import numpy as np
import pytest

from gkd.report import convergence
from tests.report.example_runs import kl
from tests.report.example_runs import run

STEPS = [0, *(2**n for n in range(16))]
KNOT = 2**11


def curve(scale, slope, after=None):
  """A power law that bends at KNOT; 0.5 % noise, and a value at step 0."""
  xs = np.array(STEPS[1:], float)
  ys = scale * xs**slope * np.maximum(xs / KNOT, 1) ** (after or 0)
  noise = np.random.default_rng(0).normal(size=len(xs))
  ys *= np.exp(0.005 * noise)
  return dict(zip(STEPS, [9.0, *ys], strict=True))


def seeds(arm, *curves, **settings):
  return [
    run(f"{arm}{n}", {kl(): found}, arm=arm, settings=settings)
    for n, found in enumerate(curves)
  ]


def laws(runs):
  (chart,) = convergence.charts(runs)
  assert (chart.x_scale, chart.y_scale) == ("log", "log")
  assert min(x for one in chart.series for x in one.xs) > 0
  return [one for one in chart.series if one.is_reference]


def test_each_arm_has_its_law_and_a_dot_where_its_seeds_leave_it():
  bent = [curve(s, -0.3, after=0.6) for s in (1.0, 2.0)]
  kept, left = laws([*seeds("kept", curve(1, -0.5)), *seeds("left", *bent)])
  assert kept.name.startswith("kept: step^-0.50")
  assert (kept.colour, kept.marked) == (0, None)
  assert left.name.startswith("left: step^-0.300 ± 0.000")
  assert left.name.endswith(f"left at {2 * KNOT:,} in 2 of 2 runs")
  assert left.xs[left.marked] == 2 * KNOT
  # It goes on to the end, where it lies between the seeds' own laws.
  assert left.xs[-1] == STEPS[-1]
  assert left.ys[-1] == pytest.approx(2**0.5 * STEPS[-1] ** -0.3, rel=0.1)


def test_laws_go_with_their_arms_where_an_axis_divides_the_chart():
  runs = [
    dataclasses.replace(
      seeds(f"arm{n}", curve(n + 1, -0.5))[0], axes={"half": n // 4}
    )
    for n in range(8)
  ]
  first, second = convergence.charts(runs)
  assert sum(one.is_context for one in first.series) == 4
  laws = [one.name[:5] for one in second.series if one.is_reference]
  assert laws == ["arm4:", "arm5:", "arm6:", "arm7:"]


def test_what_comes_before_the_warm_up_ends_is_left_out():
  runs = seeds("a", curve(1, -0.5), optimizer={"schedule": {
    "warmup_steps": 16}})  # fmt: skip
  assert laws(runs)[0].xs[0] == 16
  # Of T5X's factors it ends elsewhere.
  runs[0].about["warmup_end"] = 64
  assert laws(runs)[0].xs[0] == 64


def test_too_few_or_too_close_evaluations_have_no_law():
  few = dict(list(curve(1, -0.5).items())[:10])
  close = {1000 + n: 1.0 / n for n in range(1, 100)}
  assert not list(convergence.charts(seeds("a", few, close)))
