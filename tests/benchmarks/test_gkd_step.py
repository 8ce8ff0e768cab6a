"""gkd's side of the comparison with PyTorch: its rows are full."""

import json

from benchmarks.peers import gkd_step


def test_sampled_rows_are_full(tmp_path, monkeypatch):
  file = tmp_path / "step.json"
  options = "tiny", "tiny", "4", "8", "4", "1", str(file)
  names = "student", "teacher", "batch_size", "input_length", "target_length"
  names += "rounds", "output"
  flags = [f"--{n}={v}" for n, v in zip(names, options, strict=True)]
  monkeypatch.setattr("sys.argv", ["gkd_step", *flags])
  gkd_step.main()
  result = json.loads(file.read_text())
  assert result["sampled_length"] == 4
  assert result["seconds"]["on_policy_step"]["wall"]["median"] > 0
