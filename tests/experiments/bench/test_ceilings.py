"""Ceilings are of the work that was done."""

import jax.numpy as jnp
import pytest

from gkd.experiments.bench import ceilings


def test_rates_are_work_over_the_least_time(monkeypatch):
  monkeypatch.setitem(ceilings._SIZES, "cpu", (8, 400))
  clock = iter([0, 3, 3, 5, 5, 9, 9, 19, 19, 29] * 2)
  monkeypatch.setattr(ceilings.time, "perf_counter", lambda: next(clock))
  found = ceilings.measure(jnp.bfloat16)
  assert found.flops == pytest.approx(2 * 8**3 / 2)
  assert found.bandwidth == pytest.approx(2 * 400 / 2)
