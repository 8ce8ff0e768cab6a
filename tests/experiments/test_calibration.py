"""The guard judged on synthetic runs whose true distance is known."""

import json
import sys

import numpy as np
import pytest

from gkd.experiments.teacher_hacking import calibration
from gkd.experiments.teacher_hacking.calibration import Share
from gkd.types import UserError

METRIC = "eval/toy/forward_kl_to_oracle"
STEPS = [round(10 ** (k / 8)) for k in range(8, 33)]  # 10 to 10,000
MEMORISED = 562  # from here on, where a run hacks


def write(folder, seed, *, hacks, has_gap, noise=0.02):
  """A run whose texts are memorised, and whose true distance rises."""
  rng = np.random.default_rng(seed)
  late = np.maximum(np.array(STEPS) / MEMORISED, 1)
  law = np.array(STEPS) ** -0.3 * np.exp(noise * rng.normal(size=len(STEPS)))
  series = {
    "steps": STEPS,
    "held_out": list(law),
    "trained": list(law / late**0.5 if has_gap else law),
    "repeats": list(np.array(STEPS) / 100),
  }
  truth = law * (late**0.5 if hacks else 1)
  folder.mkdir(parents=True)
  (folder / "guard.json").write_text(json.dumps({"series": series}))
  lines = [
    json.dumps({"step": step, METRIC: value}) + "\n"
    for step, value in zip(STEPS, truth, strict=True)
  ]
  (folder / "metrics.jsonl").write_text("".join(lines))


@pytest.fixture
def folders(tmp_path):
  """Ten runs that hack, one of them without a sign, and ten that do not."""
  for seed in range(20):
    fields = {"hacks": seed < 10, "has_gap": seed < 9}
    write(tmp_path / str(seed), seed, **fields)
  return [tmp_path / str(seed) for seed in range(20)]


def test_rates_are_those_of_the_runs(folders):
  runs = [calibration.read(folder, METRIC, 0.05) for folder in folders]
  assert [run.risen is not None for run in runs] == [True] * 10 + [False] * 10
  found = calibration.rates(runs, {"gap_growth": 1.2, "repeats": 1.0})
  assert found.found == Share(9, 10)
  assert found.false_alarms == Share(0, 10)
  assert found.in_time.count < 9  # by design the gap grows as late as the truth
  assert found.delay > 1
  table = calibration.roc(runs, "gap_growth", {"repeats": 1.0})
  shares = [(x.found.count, x.false_alarms.count) for x in table.values()]
  assert shares[0] == (10, 10)
  assert shares[-1][1] == 0
  assert shares == sorted(shares, reverse=True)


def test_a_rise_lasts_to_the_end_and_for_two_evaluations():
  values = {1: 2.0, 2: 3.0, 4: 1.0, 6: 1.3, 7: 1.3, 8: 1.01, 16: 1.2, 32: 1.3}
  assert calibration.rise_step(values, 0.05) == 16
  assert calibration.rise_step(values, 0.25) is None
  signed = {1: 1.0, 2: -1.0, 4: 0.0, 8: 0.0}  # estimates may be below 0
  assert calibration.rise_step(signed, 0.05) == 4


def test_runs_too_short_for_a_score_have_no_thresholds_of_it():
  unknown = {"z": np.full(8, np.nan)}
  run = calibration.Recorded(np.arange(8), unknown, risen=None)
  assert calibration.roc([run], "z", {}) == {}


def test_intervals_are_wilson_s():
  """Newcombe (1998), Table I, method 3."""
  for share, expected in (
    (Share(81, 263), (0.2553, 0.3662)),
    (Share(15, 148), (0.0624, 0.1605)),
    (Share(0, 20), (0.0, 0.1611)),
    (Share(1, 29), (0.0061, 0.1718)),
    (Share(0, 0), (0.0, 1.0)),
  ):
    np.testing.assert_allclose(share.interval, expected, atol=1e-4)


def test_the_command_prints_a_table_of_each_score(folders, capsys, monkeypatch):
  monkeypatch.setattr(
    sys, "argv", ["", *map(str, folders), f"--metric={METRIC}"]
  )
  calibration.main()
  out = capsys.readouterr().out
  assert "|  | " in out
  assert "| 9 of 10 (60–98 %) | 0 of 10 (0–28 %) |" in out
  for score in ("memorised", "gap_growth", "repeats", "z", "delta_bic"):
    assert f"Thresholds of {score}, " in out
  with pytest.raises(UserError, match="has no 'eval/x' in metrics"):
    calibration.read(folders[0], "eval/x", 0.05)
