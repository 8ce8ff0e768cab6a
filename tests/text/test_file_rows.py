"""Rows of files of the user's own, and what is said of a wrong one."""

import gzip
import json
import sys

import pyarrow as pa
from pyarrow import parquet
import pytest

from gkd.text import file_rows
from gkd.text.data_files import DataFiles
from gkd.types import UserError

FIELDS = {"inputs": "capital of {country}?", "targets": "city"}
COLUMNS = {
  "country": ["Peru", "Chad"],
  "city": ["Lima", "N'Djamena, the\ncity"],
}
ROWS = [
  {"inputs": f"capital of {country}?", "targets": city}
  for country, city in zip(*COLUMNS.values(), strict=True)
]
JSON = "".join(
  json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n"
  for row in zip(*COLUMNS.values(), strict=True)
)
CSV = 'country,city\nPeru,Lima\n\nChad,"N\'Djamena, the\ncity"\n'


def write(path, content):
  path.parent.mkdir(exist_ok=True)
  opened = gzip.open if path.suffix == ".gz" else open
  content = content.encode() if isinstance(content, str) else content
  with opened(path, "wb") as file:
    file.write(content)


def save_to_disk(folder, table):
  """As `datasets` 5.2 does."""
  folder.mkdir(parents=True)
  state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
  (folder / "state.json").write_text(json.dumps(state))
  file = str(folder / "data-00000-of-00001.arrow")
  with pa.ipc.new_stream(file, table.schema) as stream:
    stream.write_table(table)


def splits(folder, **settings):
  """{split: rows} of the files that the settings name."""
  own = DataFiles(**{"fields": FIELDS, **settings})
  names = file_rows.splits(folder, own.files)
  return {s: list(file_rows.rows(folder, names, own.columns, s)) for s in names}


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("train.jsonl", JSON + "\n"),
    ("train.jsonl.gz", "\ufeff" + JSON),
    ("train.csv", "\ufeff" + CSV),
    ("train.csv.gz", CSV),
    (
      "train.tsv",
      CSV.replace("y,c", "y\tc").replace("u,L", "u\tL").replace('d,"', 'd\t"'),
    ),
  ],
)
def test_text_files_give_the_rows_by_their_columns(tmp_path, name, content):
  write(tmp_path / name, content)
  assert splits(tmp_path, files=".") == {"train": ROWS}
  found = splits(tmp_path, files={"dev": str(tmp_path / name)})
  assert found == {"dev": ROWS}


def test_parquet_and_folders_of_datasets_give_them_too(tmp_path):
  table = pa.table(COLUMNS)
  (tmp_path / "shards").mkdir()
  for shard in range(2):
    path = tmp_path / "shards" / f"test-0000{shard}-of-00002.parquet"
    parquet.write_table(table.slice(shard, 1), path)
  save_to_disk(tmp_path / "saved" / "train", table)
  save_to_disk(tmp_path / "saved" / "dev", table.slice(1))
  names = json.dumps({"splits": ["train", "dev"]})
  (tmp_path / "saved" / "dataset_dict.json").write_text(names)
  assert splits(tmp_path, files="shards") == {"test": ROWS}
  assert splits(tmp_path, files="saved") == {"train": ROWS, "dev": ROWS[1:]}
  assert splits(tmp_path, files="saved/dev") == {"train": ROWS[1:]}


def test_references_are_a_list_and_an_empty_target_is_a_prompt(tmp_path):
  lines = [
    {"q": "a", "a": None, "r": []},
    {"q": "b", "a": "x", "r": ["x", "y"]},
    {"q": "c", "a": "z", "r": "z"},
  ]
  write(tmp_path / "train.jsonl", "\n".join(map(json.dumps, lines)))
  fields = {"inputs": "q", "targets": "a", "references": "r"}
  rows = splits(tmp_path, files=".", fields=fields)["train"]
  assert [row["targets"] for row in rows] == ["", "x", "z"]
  assert [row["references"] for row in rows] == [[], ["x", "y"], ["z"]]
  prompts = splits(tmp_path, files=".", fields={"inputs": "q"})["train"]
  assert prompts == [{"inputs": "a"}, {"inputs": "b"}, {"inputs": "c"}]


def test_a_text_around_columns_is_one_reference(tmp_path):
  write(tmp_path / "train.jsonl", JSON)
  fields = {"inputs": "country", "references": "{city}, {country}"}
  rows = splits(tmp_path, files=".", fields=fields)["train"]
  assert rows[0] == {"inputs": "Peru", "references": ["Lima, Peru"]}
  with pytest.raises(UserError, match=r"line 1: .of {city. lacks a brace"):
    splits(tmp_path, files=".", fields={"inputs": "of {city"})


def test_shards_of_a_split_are_counted(tmp_path):
  write(tmp_path / "train-00000-of-00002.jsonl", JSON)
  with pytest.raises(UserError, match="has 1 files of the split 'train', but"):
    splits(tmp_path, files=".")
  write(tmp_path / "train-00001-of-00002.jsonl", JSON)
  assert splits(tmp_path, files=".") == {"train": ROWS * 2}


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    (
      "a.jsonl",
      '{"country": "Peru", "city": 12}\n',
      "line 1: 'city' is 12; ex",
    ),
    ("a.jsonl", JSON + '{"country": "", "city": "x", "note": 1}', None),
    (
      "a.jsonl",
      JSON + '{"country": "Fiji"}',
      "line 3: there is no column 'city",
    ),
    ("a.jsonl", JSON + "{", r"cannot be read \(line 3: Expecting"),
    ("a.jsonl", JSON + "[1]", r"cannot be read \(line 3 is no object"),
    ("a.csv", CSV + "Fiji\n", r"line 6 has 1 cells, and the header 2"),
    ("a.csv", CSV + "Fiji,Suva,x\n", r"line 6 has 3 cells, and the header 2"),
    ("a.csv", CSV + 'Fiji,"Suva\n', "cannot be read .unexpected end of data"),
    ("a.csv", CSV.encode() + b"C\xf4te,x\n", "line 6 is not UTF-8: byte 0xf4"),
    ("a.csv", "", r"its first line is \[\]; expected names of columns"),
    ("a.csv", "a,a\n", r"its first line is \['a', 'a'\]"),
    (
      "a.csv",
      "land,city\nPeru,Lima\n",
      "line 2: there is no column 'country', b",
    ),
    ("a.parquet", b"no parquet", "a.parquet cannot be read"),
    ("a.txt", "x", "expected .jsonl, .csv, .tsv, .parquet"),
  ],
)
def test_what_is_wrong_is_told_with_file_and_row(
  tmp_path, name, content, message
):
  write(tmp_path / name, content)
  if message is None:
    fields = {"inputs": "country", "targets": "city"}
    with pytest.raises(UserError, match=r"a.jsonl, line 3: 'country' is empty"):
      splits(tmp_path, files={"train": name}, fields=fields)
    return
  with pytest.raises(UserError, match=message) as caught:
    splits(tmp_path, files={"train": name})
  assert str(tmp_path / name) in str(caught.value)


def test_the_first_row_of_each_file_of_a_split_that_is_here_is_checked(
  tmp_path,
):
  own = DataFiles(files=".", fields=FIELDS)
  write(tmp_path / "test.csv", "no,label\n1,2\n")
  for shard, content in enumerate((CSV + "late\n", CSV)):
    write(tmp_path / f"train-0000{shard}-of-00002.csv", content)
  file_rows.check(tmp_path, own, "train")
  file_rows.check(tmp_path, DataFiles(files={"train": "x.csv"}), "train")
  write(tmp_path / "train-00001-of-00002.csv", "land,city\nPeru,Lima\n")
  with pytest.raises(UserError, match=r"1-of-00002.csv, line 2: .*DATA_FIELDS"):
    file_rows.check(tmp_path, own, "train")


def test_without_pyarrow_the_message_says_what_to_install(
  tmp_path, monkeypatch
):
  parquet.write_table(pa.table(COLUMNS), tmp_path / "train.parquet")
  monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
  message = r"^data file \S+ needs pyarrow .*; pip install pyarrow, or"
  with pytest.raises(UserError, match=message):
    splits(tmp_path, files=".")


def test_a_damaged_gzip_and_files_that_are_not_there(tmp_path):
  write(tmp_path / "a.csv.gz", CSV * 99)
  (tmp_path / "a.csv.gz").write_bytes((tmp_path / "a.csv.gz").read_bytes()[:-9])
  with pytest.raises(UserError, match=r"a.csv.gz cannot be read \(Compressed"):
    splits(tmp_path, files={"train": "a.csv.gz"})
  with pytest.raises(
    UserError, match=r"has 'b.csv', but there is no /.*/b.csv"
  ):
    splits(tmp_path, files={"train": "b.csv"})
  with pytest.raises(
    UserError, match=r"is the file .*, as {'train': 'a.csv.gz'}"
  ):
    splits(tmp_path, files="a.csv.gz")
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match=r"empty has no .jsonl, .csv, .tsv or"):
    splits(tmp_path, files="empty")


@pytest.mark.parametrize(
  ("file", "content", "message"),
  [
    (
      "state.json",
      "{}",
      "has _data_files None; expected a list; save the data",
    ),
    ("state.json", '{"_data_files": [{}]}', "has _data_files.0.filename None;"),
    ("dataset_dict.json", "{", "dataset_dict.json is not JSON"),
    ("dataset_dict.json", '{"splits": [0]}', "has splits.0 0; expected text"),
  ],
)
def test_a_damaged_description_of_a_saved_folder_is_one_line(
  tmp_path, file, content, message
):
  save_to_disk(tmp_path / "saved" / "train", pa.table(COLUMNS))
  write(tmp_path / "saved" / "dataset_dict.json", '{"splits": ["train"]}')
  (file,) = (tmp_path / "saved").rglob(file)
  file.write_text(content)
  with pytest.raises(UserError, match=message):
    splits(tmp_path, files="saved")


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (
      {"fields": {"targets": "a"}},
      "DATA_FIELDS is {'targets': 'a'}; expected a",
    ),
    (
      {"fields": {"inputs": "a", "target": "b"}},
      "expected a column of 'inputs'",
    ),
    ({"files": "", "metrics": ["bleu"]}, "METRICS are of your own files; give"),
    (
      {"metrics": ["exact_match_over_tasks"]},
      r"a column of 'task' with METRICS = \['exact_match_over_tasks'\]",
    ),
    (
      {"metrics": ["exact_match", "exact_match_over_tasks"]},
      "and with no other",
    ),
    (
      {"fields": {"inputs": "a", "targets": "b", "task": "c"}},
      "expected a column of 'task' with METRICS",
    ),
    ({"metrics": ["bleus"]}, "METRICS has 'bleus'; expected functions of gkd"),
  ],
)
def test_settings_that_cannot_be(settings, message):
  with pytest.raises(UserError, match=message):
    DataFiles(**{"files": "a", **settings})
