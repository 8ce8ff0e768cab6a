"""Curves of cost: time over work, memory with the logits in chunks."""

import functools
import json

from benchmarks import cost
from benchmarks.peers import t5
from benchmarks.peers import work


def test_time_is_a_curve(tmp_path, monkeypatch):
  few = functools.partial(cost.times, "batch_size", (4, 8))
  monkeypatch.setitem(cost.CURVES, "batch", few)
  flags = f"batch --size=tiny --rounds=1 --target_length=2 --output={tmp_path}"
  monkeypatch.setattr("sys.argv", ["cost", *flags.split()])
  cost.main()
  points = json.loads((tmp_path / "cost_batch.json").read_text())["points"]
  assert [point["batch_size"] for point in points] == [4, 8]
  assert all(point["sample_cpu_ms"] > 0 for point in points)
  assert (tmp_path / "cost_batch.png").exists()


def test_chunks_of_logits_take_less_memory(monkeypatch):
  monkeypatch.setitem(work.SIZES, "tiny", work.SIZES["tiny"])
  flags = "--size=tiny --target_length=64 --chunk_size=8"
  args = work.with_defaults(t5.parser().parse_args(flags.split()))
  args.curve = "memory"
  dense, chunked = points = list(cost.memory((2048,), args))
  assert dense["temporary_bytes"] > 2 * chunked["temporary_bytes"]
  assert dense["gradient_bytes"] == chunked["gradient_bytes"]
  assert len(cost.memory_chart(args, points).series) == 3
