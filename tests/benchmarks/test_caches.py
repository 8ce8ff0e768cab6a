"""The bench of caches measures a small task as it would the real one."""

import gzip
import json
import sys

import pytest
import seqio

from benchmarks import caches
from gkd.data import shards
from gkd.text.vocabulary import ByteVocabulary


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
  """Few rows of Tatoeba, bytes as the vocabulary, small shards."""
  (tmp_path / "translation").mkdir()
  file = tmp_path / "translation" / "tatoeba_ende_train.jsonl.gz"
  with gzip.open(file, "wt") as lines:
    for n in range(30):
      row = {"inputs": f"I see {n}.", "targets": f"Ich sehe {n}."}
      lines.write(json.dumps(row) + "\n")
  monkeypatch.setattr(caches, "_vocabulary", lambda folder: ByteVocabulary())
  monkeypatch.setattr(caches, "MILLION", 70)
  monkeypatch.setattr(caches, "_SAMPLE", 20)
  monkeypatch.setattr(caches, "_WARM_UP", 5)
  monkeypatch.setattr(shards, "FIRST_ROWS", 16)
  yield tmp_path
  seqio.TaskRegistry.remove(caches.REPEATED_TASK)


def test_every_measurement_is_written_with_date_and_hardware(
  data_dir, monkeypatch, capsys
):
  output = data_dir / "results.json"
  output.write_text('{"other": 1}')
  arguments = [f"--data_dir={data_dir}", f"--output={output}", "--workers=2"]
  monkeypatch.setattr(sys, "argv", ["caches", "--in_this_process", *arguments])
  caches.main()
  results = json.loads(output.read_text())
  assert results.keys() == {"other", *caches.MEASUREMENTS}
  assert results["making"]["rows"] == 30
  assert results["making_a_million"]["rows"] == 70
  for name in ("making", "making_a_million"):
    found = results[name]
    assert found["cpu_seconds"] > 0
    assert found["peak_memory_mb"]["parent"] > 0
    assert found["rows_per_second"] == pytest.approx(
      found["rows"] / found["wall_seconds"]
    )
  ratio = results["tokenising"]["ratio"]
  assert ratio > 1  # bytes too: TensorFlow's overhead alone is more
  for name in caches.MEASUREMENTS:
    assert results[name]["date"][:2] == "20"
    assert "cores" in results[name]["hardware"]
