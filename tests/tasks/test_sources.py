"""Python rows reach a cache as a stream, and TensorFlow as they are."""

import gzip
import operator

import pytest

from gkd.tasks import sources
from gkd.types import UserError


def endless():
  n = 0
  while True:
    yield {"inputs": f"i{n}", "targets": None, "other": n}
    n += 1


def test_a_generator_is_not_read_ahead():
  source = sources.rows_source(lambda split: endless(), ("train",))
  examples = iter(source.examples("train"))
  assert [next(examples) for _ in range(2)] == [
    {"inputs": "i0", "targets": ""},
    {"inputs": "i1", "targets": ""},
  ]
  assert operator.length_hint(source.examples("train")) == 0


def test_the_number_of_rows_is_known_where_it_can_be():
  rows = [{"inputs": "a", "targets": "b", "references": ["c"]}] * 3
  mapped = sources.Mapped(lambda row, number: row, rows)
  source = sources.rows_source(lambda split: mapped, ("train",))
  assert operator.length_hint(source.examples("train")) == 3
  # Both ways give the same fields.
  both = sources.rows_source(lambda s: rows, ("train",), with_references=True)
  assert list(both.examples("train")) == rows
  (first, *_) = both.get_dataset("train", shuffle=False).as_numpy_iterator()
  assert first.keys() == rows[0].keys()


def test_a_wrong_row_is_named_by_its_number():
  rows = [{"inputs": "a"}, {"targets": "a"}]
  source = sources.rows_source(lambda split: rows, ("train",))
  with pytest.raises(UserError, match=r"row 1 has .* 'inputs' as text"):
    list(source.examples("train"))


def test_json_lines_can_be_shuffled_and_read_again(tmp_path):
  with gzip.open(tmp_path / "x.gz", "wt") as file:
    file.writelines(f'{{"inputs": {n}}}\n' for n in range(20))
  lines = sources.read_jsonl(tmp_path, "x.gz")
  assert len(lines) == 20
  order = [row["inputs"] for row in lines.shuffled(0)]
  assert order != list(range(20))
  assert sorted(order) == list(range(20))
  assert order == [row["inputs"] for row in lines.shuffled(0)]
  assert [row["inputs"] for row in lines] == list(range(20))
  with gzip.open(tmp_path / "x.gz", "wt") as file:
    file.write('{"inputs": 1}\nwhat\n')
  with pytest.raises(UserError, match=r"x.gz cannot be read \(line 2: "):
    list(sources.read_jsonl(tmp_path, "x.gz"))
