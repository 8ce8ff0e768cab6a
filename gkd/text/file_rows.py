"""Rows of the user's own files, as a configuration names them (`DATA_FILES`).

JSON lines, CSV and TSV (also gzipped), Parquet, and what Hugging Face's
`datasets` saved with `save_to_disk`. What is wrong with a row is one line with
the file and the row.
"""

from collections import defaultdict
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import csv
import functools
import gzip
import importlib
import itertools
import json
import os
from pathlib import Path
import re
import sys
from typing import Any
import zlib

from gkd import files
from gkd.errors import UserError
from gkd.errors import row_name
from gkd.text import raw_files
from gkd.text.data_files import DataFiles

# As `datasets` names shards: train-00000-of-00002.parquet.
_FILE = re.compile(
  r"(?P<split>.+?)(-\d+-of-(?P<number>\d+))?"
  r"(\.(jsonl|csv|tsv)(\.gz)?|\.parquet)"
)
_SAVED = "state.json"  # of a folder that `save_to_disk` wrote
# Where a row is ("line 3"), and its columns.
_Located = Iterator[tuple[str, Mapping[str, Any]]]


def splits(
  data_dir: str | os.PathLike | None, data_files: str | Mapping[str, str]
) -> dict[str, list[str]]:
  """{split: names for `raw_files.find`}."""
  if not isinstance(data_files, str):
    paths = {
      s: _of_split(_existing(data_dir, f)) for s, f in data_files.items()
    }
  else:
    folder = _existing(data_dir, data_files)
    if folder.is_file():
      raise UserError(
        f"DATA_FILES is the file {folder}; give the split that it is, as"
        f" {{'train': {data_files!r}}}, or the folder of the files of all"
        " splits"
      )
    paths = _of_folder(folder)
  root = Path(data_dir or os.devnull).absolute()
  return {
    split: [
      str(path.relative_to(root) if path.is_relative_to(root) else path)
      for path in map(Path.absolute, of_split)
    ]
    for split, of_split in paths.items()
  }


def check(
  data_dir: str | os.PathLike | None, data_files: DataFiles, split: str
) -> None:
  """Reads the first row of each file of a split, if they are here.

  Raises:
    UserError: DATA_FIELDS has columns that a file has not, or it is damaged.
  """
  try:
    names = splits(data_dir, data_files.files).get(split, [])
  except UserError:  # a cache that was made elsewhere may be
    return
  for name in names:
    next(rows(data_dir, {split: [name]}, data_files.columns, split), None)


def rows(
  data_dir: str | os.PathLike | None,
  names: Mapping[str, Sequence[str]],
  fields: Mapping[str, str] | Callable[[Mapping[str, Any]], Mapping[str, str]],
  split: str,
) -> Iterator[dict[str, Any]]:
  """The rows of a split, with `fields` of their columns.

  Args:
    data_dir: the data directory.
    names: what `splits` found.
    fields: {name: column, or text around columns in braces}, or what gives that
      for the columns of a row.
    split: one of them.

  Raises:
    UserError: a row, or a file, that cannot be read.
  """
  # All of them are in the key of a cache, also of a half-made one.
  for path in [raw_files.find(data_dir, name) for name in names[split]]:
    for place, columns in _read(path):
      try:
        of_row = fields(columns) if callable(fields) else fields
        row = {n: _value(columns, field, n) for n, field in of_row.items()}
        if not row["inputs"].strip():
          raise ValueError(
            f"{of_row['inputs']!r} is empty; fill it in, or leave the row out"
          )
      except ValueError as error:
        raise UserError(f"data file {path}, {place}: {error}") from error
      yield row


def _existing(data_dir: str | os.PathLike | None, name: str) -> Path:
  path = Path(data_dir or "", files.local_path(name))
  if not path.exists():
    raise UserError(
      f"DATA_FILES has {name!r}, but there is no {path.absolute()}; give its"
      " whole path, or --data_dir, the folder that it is relative to"
    )
  return path


def _of_folder(folder: Path) -> dict[str, list[Path]]:
  """{split: files} of a folder of files, or one that `datasets` saved."""
  if (folder / _SAVED).is_file():
    return {"train": _of_split(folder)}
  if (saved := folder / "dataset_dict.json").is_file():
    names = _described(saved, {"splits": [str]})["splits"]
    return {name: _of_split(folder / name) for name in names}
  paths, numbers = defaultdict(list), {}
  for path in sorted(folder.iterdir()):
    if match := _FILE.fullmatch(path.name):
      paths[match["split"]].append(path)
      if match["number"]:
        numbers[match["split"]] = int(match["number"])
  for split, number in numbers.items():
    if len(paths[split]) != number:
      raise UserError(
        f"DATA_FILES: {folder} has {len(paths[split])} files of the split"
        f" {split!r}, but their names say {number}; copy the others, or take"
        " out what is too much"
      )
  if not paths:
    raise UserError(
      f"DATA_FILES: {folder} has no .jsonl, .csv, .tsv or .parquet, and"
      " save_to_disk of datasets did not write it; give a folder with a file of"
      " each split, such as train.csv and validation.csv"
    )
  return dict(paths)


def _of_split(path: Path) -> list[Path]:
  """The files of one split."""
  if path.is_file():
    return [path]
  if not (path / _SAVED).is_file():
    raise UserError(
      f"DATA_FILES: {path} is a folder that save_to_disk of datasets did not"
      " write; give the file of the split"
    )
  state = _described(path / _SAVED, {"_data_files": [{"filename": str}]})
  return [path / file["filename"] for file in state["_data_files"]]


def _described(file: Path, types: files.Types) -> dict[str, Any]:
  """What `datasets` says of a folder that it saved."""
  remedy = "save the data set again"
  content = files.read_json(file, {}, remedy)
  files.check_types(file, content, types, remedy, required=True)
  return content


def _value(columns: Mapping[str, Any], field: str, name: str) -> Any:
  """The text of a row that is its `name`; of "references" a list of texts."""
  if set(field) & set("{}"):
    if set(re.sub(r"{[^{}]*}", "", field)) & set("{}"):
      raise ValueError(f"{field!r} lacks a brace; correct DATA_FIELDS")
    text = re.sub(
      r"{([^{}]*)}", lambda m: _value(columns, m[1], "inputs"), field
    )
    return [text] if name == "references" else text
  if field not in columns:
    raise ValueError(
      f"there is no column {field!r}, but {', '.join(columns)}; correct"
      " DATA_FIELDS or the file"
    )
  value = columns[field]
  texts = value if isinstance(value, list) else [value] * (value is not None)
  is_list = isinstance(value, list) and name != "references"
  if is_list or not all(isinstance(text, str) for text in texts):
    raise ValueError(f"{field!r} is {value!r:.60}; expected text")
  return list(filter(None, texts)) if name == "references" else value or ""


def _read(path: Path) -> _Located:
  """The rows of a file, and where each is in it."""
  name = path.name.removesuffix(".gz")
  readers = {
    ".jsonl": _json_lines,
    ".csv": functools.partial(_separated, separator=","),
    ".tsv": functools.partial(_separated, separator="\t"),
    ".parquet": _parquet,
    ".arrow": _arrow,
  }
  if (suffix := Path(name).suffix) not in readers:
    raise UserError(
      f"DATA_FILES has {path}; expected {', '.join(readers)} (text also .gz),"
      " or a folder that save_to_disk of datasets wrote"
    )
  try:
    yield from readers[suffix](path)
  except UserError:
    raise
  # csv.Error, pyarrow's errors and a damaged gzip.
  except (ValueError, OSError, EOFError, csv.Error, zlib.error) as error:
    reason = " ".join(str(error).split())
    raise UserError(
      f"data file {path} cannot be read ({reason}); write it again"
    ) from error


def _lines(path: Path) -> Iterator[str]:
  """Its lines, each decoded by itself: a wrong byte is told with its line."""
  opened = gzip.open if path.suffix == ".gz" else open
  with opened(path, "rb") as file:
    for number, line in enumerate(file, 1):
      try:
        yield line.decode("utf-8-sig" if number == 1 else "utf-8")
      except UnicodeDecodeError as error:
        raise ValueError(
          f"line {number} is not UTF-8: byte {line[error.start]:#x}"
        ) from error


def _json_lines(path: Path) -> _Located:
  for number, line in enumerate(_lines(path), 1):
    if line.strip():
      try:
        row = json.loads(line)
      except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number}: {error}") from error
      if not isinstance(row, dict):
        raise ValueError(f"line {number} is no object, as JSON lines have")
      yield f"line {number}", row


def _separated(path: Path, separator: str) -> _Located:
  csv.field_size_limit(sys.maxsize)  # a document may be a cell
  reader = csv.reader(_lines(path), delimiter=separator, strict=True)
  header = next(reader, [])
  if len(set(header)) < len(header) or not header:
    raise ValueError(f"its first line is {header}; expected names of columns")
  for cells in reader:
    where = f"line {reader.line_num}"
    if len(cells) not in (0, len(header)):
      raise ValueError(
        f"{where} has {len(cells)} cells, and the header {len(header)}; quote"
        f" cells that hold {separator!r} or a newline"
      )
    if cells:
      yield where, dict(zip(header, cells, strict=True))


def _parquet(path: Path) -> _Located:
  parquet = _pyarrow("pyarrow.parquet", path)
  with parquet.ParquetFile(path) as file:
    yield from _of_batches(file.iter_batches())


def _arrow(path: Path) -> _Located:
  pyarrow = _pyarrow("pyarrow", path)
  with pyarrow.memory_map(str(path)) as file:
    yield from _of_batches(pyarrow.ipc.open_stream(file))


def _of_batches(batches: Iterable[Any]) -> _Located:
  rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
  return ((row_name(number), row) for number, row in enumerate(rows))


def _pyarrow(module: str, path: Path) -> Any:
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise UserError(
      f"data file {path} needs pyarrow ({error}); pip install pyarrow, or write"
      " JSON lines or CSV"
    ) from error
