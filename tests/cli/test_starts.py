"""A run notes each of its starts."""

import json

from gkd.cli.starts import starts


def test_a_resumed_run_keeps_its_earlier_starts(tmp_path, monkeypatch):
  monkeypatch.setattr("sys.argv", ["gkd", "train", "--gin.A='b c'"])
  first = starts()
  (tmp_path / "run.json").write_text(json.dumps({"starts": first}))
  before, now = starts(tmp_path)
  assert before == first[0]
  assert now["command"] == """gkd train '--gin.A='"'"'b c'"'"''"""
  assert now["date"] >= before["date"]
