"""Python rows reach a cache as a stream, and TensorFlow as they are."""

import gzip
import operator

import pytest
import requests
import seqio

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


@pytest.mark.parametrize(
  ("row", "wrong"),
  [
    ({"targets": "a"}, "inputs"),
    ({"inputs": "a", "targets": 2}, "targets"),
    ({"inputs": "a", "targets": 0}, "targets"),
    ({"inputs": "a", "targets": False}, "targets"),
    ({"inputs": "a", "targets": []}, "targets"),
    ({"inputs": None}, "inputs"),
    ({"inputs": "a\ud800"}, "inputs"),
    ({"inputs": "a", "targets": "\udfff"}, "targets"),
    ({"inputs": "a"}, "references"),
    ({"inputs": "a", "targets": "b", "references": "bc"}, "references"),
    ({"inputs": "a", "targets": "b", "references": [1]}, "references"),
    ({"inputs": "a", "targets": "b", "references": 1}, "references"),
  ],
)
def test_a_wrong_row_is_named_by_its_number(row, wrong):
  rows = [{"inputs": "a", "references": []}, row]
  source = sources.rows_source(
    lambda split: rows, ("train",), with_references=wrong == "references"
  )
  with pytest.raises(UserError, match=f"row 1 .* has .* '{wrong}' as .*text"):
    list(source.examples("train"))


def write(path, text):
  with (gzip.open if path.suffix == ".gz" else open)(path, "wt") as file:
    file.write(text)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_json_lines_can_be_shuffled_and_read_again(tmp_path, name):
  write(tmp_path / name, "".join(f'{{"inputs": {n}}}\n' for n in range(20)))
  lines = sources.read_jsonl(tmp_path, name, lambda row: row["inputs"])
  assert len(lines) == 20
  assert list(lines) == list(lines) == list(range(20))
  shuffled = sources.read_jsonl(
    tmp_path, name, lambda row: row["inputs"], shuffled=True
  )
  assert list(shuffled) == list(shuffled) != list(range(20))
  assert sorted(shuffled) == list(range(20))


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_files_that_cannot_be_read_are_named(tmp_path, name):
  write(tmp_path / name, '{"inputs": 1}\nwhat\n')
  with pytest.raises(UserError, match=rf"{name} cannot be read \(line 2: "):
    list(sources.read_jsonl(tmp_path, name))
  (tmp_path / name).write_bytes(b"\xff no text")
  with pytest.raises(UserError, match=f"{name} cannot be read"):
    sources.read_jsonl(tmp_path, name)


def test_a_source_of_json_lines_converts_each(tmp_path):
  write(tmp_path / "a.jsonl", '{"q": "1+1", "a": "2"}\n')
  # A path may be absolute, wherever the data directory is.
  files = {"train": "a.jsonl", "test": str(tmp_path / "a.jsonl")}
  for data_dir, splits in ((tmp_path, ("train", "test")), (None, ("test",))):
    source = sources.jsonl_source(
      data_dir, files, lambda line: {"inputs": line["q"], "targets": line["a"]}
    )
    for split in splits:
      rows = source.examples(split)
      assert list(rows) == [{"inputs": "1+1", "targets": "2"}]
      assert operator.length_hint(rows) == 1


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_line_without_a_key_is_named_by_file_and_number(tmp_path, shuffled):
  lines = ['{"q": "1", "a": "2"}'] * 7
  write(tmp_path / "a.jsonl", "\n".join([*lines, '{"q": "1"}', *lines]))
  rows = sources.read_jsonl(
    tmp_path, "a.jsonl", lambda line: line["a"], shuffled
  )
  expected = r"a\.jsonl, line 8 has no 'a', but \['q'\]"
  with pytest.raises(UserError, match=expected):
    list(rows)


@pytest.mark.parametrize(
  ("error", "remedy"),
  [
    (
      ModuleNotFoundError("x", name="lib"),
      "install what is missing: pip instal",
    ),
    (ConnectionResetError("x"), "connection to download it from here; do this"),
    (
      requests.ConnectionError("x"),
      "connection to download it from here; do t",
    ),
    (ValueError("x"), r"\(ValueError: x\): do this"),
  ],
)
def test_the_remedy_of_tfds_fits_its_cause(monkeypatch, error, remedy):
  def get_dataset(self, *args):
    raise error

  monkeypatch.setattr(seqio.TfdsDataSource, "get_dataset", get_dataset)
  with pytest.raises(UserError, match=remedy):
    sources.TfdsSource("a:1.0.0", ("train",), "do this").get_dataset("train")
