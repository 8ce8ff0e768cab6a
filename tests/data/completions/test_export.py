"""Completions as text: what is kept, what is left out, what is refused."""

import json

import pytest

from gkd.data.completions.export import export_text
from gkd.text.bpe import BPEVocabulary
from gkd.types import UserError
from tests.data import tiny_caches
from tests.tiny_tokenizers import bpe_json

VOCABULARY = BPEVocabulary(bpe_json(), [318, 316])
HALF = VOCABULARY.encode("中")[:1]  # a byte that is no character


def cache(path, targets, **more):
  rows = [
    tiny_caches.Row([1], ids, f"prompt {n}", None)
    for n, ids in enumerate(targets)
  ]
  lengths = {"inputs": 8, "targets": 16}
  changes = {"vocabulary": VOCABULARY, "lengths": lengths} | more
  return tiny_caches.write(path, rows, **changes)


def test_ended_completions_become_lines_and_others_are_counted(tmp_path):
  hello = VOCABULARY.encode(" a cat\n")
  targets = [[*hello, 318], hello, [*hello, 316], [318], [*HALF, 318], hello]
  answers = cache(tmp_path / "c", targets, written_by={"source": "teacher"})
  said = export_text(answers, tmp_path / "c.jsonl")
  lines = (tmp_path / "c.jsonl").read_text("utf-8").splitlines()
  assert [json.loads(line) for line in lines] == [
    {"inputs": "prompt 0", "targets": " a cat\n"},
    {"inputs": "prompt 2", "targets": " a cat\n"},
  ]
  assert said == (
    f"2 of 6 completions of toy train as text: {tmp_path / 'c.jsonl'}; left"
    " out: 2 cut without EOS, 1 empty, 1 with broken or unknown characters"
  )


def test_nothing_to_write_and_rows_of_a_task_are_refused(tmp_path):
  cut = cache(tmp_path / "cut", [HALF], written_by={"source": "teacher"})
  task = cache(tmp_path / "task", [[5, 318]])
  for folder, message in (
    (cut, "no completion of .*cut can be text: 1 cut without EOS; sample with"),
    (task, "task holds the rows of toy train, not completions; give a folder"),
  ):
    with pytest.raises(UserError, match=message):
      export_text(folder, tmp_path / "x.jsonl")
  assert not (tmp_path / "x.jsonl").exists()
