"""gkd's side of the comparison with PyTorch: its rows are full."""

import json

from benchmarks.peers import gkd_step
from benchmarks.peers import options


def test_sampled_rows_are_full(tmp_path, monkeypatch):
  file = tmp_path / "step.json"
  monkeypatch.setattr(options, "ROWS", 512)
  monkeypatch.setitem(gkd_step._TINY, "vocab_size", 512)
  flags = "tiny --teacher=tiny --batch_size=4 --input_length=8"
  flags = f"--student={flags} --target_length=4 --rounds=1 --output={file}"
  monkeypatch.setattr("sys.argv", ["gkd_step", *flags.split()])
  gkd_step.main()
  result = json.loads(file.read_text())
  assert result["sampled_length"] == 4
  assert result["seconds"]["on_policy_step"]["wall"]["median"] > 0
