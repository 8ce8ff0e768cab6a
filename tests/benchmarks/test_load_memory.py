"""The load is watched in a process of its own and split over its devices."""

from benchmarks import conversion
from benchmarks import load_memory


def test_each_device_holds_its_part_in_the_type_asked_for(tmp_path):
  found = load_memory.measure("tiny", 2, "bfloat16", tmp_path)
  model = conversion.random_model("tiny")
  assert found["content_sha256"] == model.content_sha256
  first, second = found["device_mb"]
  assert first == second
  # Half the bytes of float32, and norms are on both devices.
  assert 0.5 <= (first + second) / found["stored_mb"] < 0.6
  assert found["over_baseline_mb"] > 0
