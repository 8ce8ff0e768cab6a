"""The programs that are compared take turns, and the results are complete."""

import json

import pytest

from benchmarks.peers import t5
from benchmarks.peers import turns


def test_gkd_takes_its_turns(tmp_path, monkeypatch):
  file = tmp_path / "t5.json"
  flags = "--size=tiny --target_length=3 --rounds=2 --steps=1"
  flags = [*flags.split(), f"--output={file}", "--peers=gkd"]
  monkeypatch.setattr("sys.argv", ["t5", *flags])
  t5.main()
  result = json.loads(file.read_text())
  phases = result["summary"]["on_policy"]["gkd"]
  assert phases["sample_wall"]["seconds"]["min"] > 0
  assert phases["step_cpu"]["ratio"]["median"] == 1
  assert result["summary"]["on_policy_over_fixed"]["median"] > 1


def test_ratios_are_taken_by_round():
  def reply(seconds):
    return {"step": {"wall": seconds, "cpu": 1.0}, "peak_rss_bytes": 1}

  rounds = [
    {"gkd": reply(ours), "peer": reply(theirs)}
    for ours, theirs in ((1.0, 3.0), (2.0, 4.0), (8.0, 8.0))
  ]
  entry = turns.summary(rounds)["peer"]["step_wall"]
  assert entry["ratio"] == {"min": 1, "median": 2, "max": 3}
  assert entry["seconds"]["median"] == pytest.approx(4)
