"""The reading bench counts what it reads; times are not judged here."""

import json
import sys

import pytest

from benchmarks import reading
from tests.data import tiny_caches


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  return tiny_caches.numbered(tmp_path_factory.mktemp("c") / "c", 220)


def test_rows_and_memory_are_of_the_cache(cache):
  found = reading.measure(str(cache.path), 10, 200)
  assert found["rows_in_cache"] == 220
  assert found["rows_read"] == 200
  for kind in ("cpu", "wall"):
    speed = found["rows_per_second"][kind]
    assert 0 < speed["min"] <= speed["median"] <= speed["max"]
  memory = found["resident_mb"]
  # The kernel counts the two in ways that differ by some pages.
  for moment in ("before", "last_part"):
    assert 0 < memory[moment] <= memory["peak"] * 1.05
  assert "220 rows, batch   10" in reading.words(found)


def test_each_measurement_is_a_process_and_goes_to_the_file(
  cache, tmp_path, monkeypatch, capsys
):
  output = tmp_path / "reading.json"
  arguments = ["reading", str(cache.path), "--batch_sizes", "5", "--rows=25"]
  monkeypatch.setattr(sys, "argv", [*arguments, f"--output={output}"])
  reading.main()
  result = json.loads(output.read_text())
  assert [m["batch_size"] for m in result["measured"]] == [5]
  assert "cores" in result["hardware"]
  assert "220 rows, batch    5" in capsys.readouterr().out
