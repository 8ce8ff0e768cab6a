"""The vocabulary that a configuration names: a word, a file or a folder."""

import difflib
from pathlib import Path

from gkd import files
from gkd import gguf_file
from gkd.config import configuration
from gkd.config.records import DataConfig
from gkd.config.records import Folders
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import Vocabulary
from gkd.text.vocabulary import from_spec
from gkd.text.vocabulary import load
from gkd.types import UserError

# Of the cache folder: tokenizers that were rebuilt from a checkpoint's files.
FOLDER = "models"
_MAKE = "gkd cache vocabulary --output=FILE makes one"


def of(data: DataConfig, folders: Folders) -> Vocabulary:
  """The vocabulary that VOCABULARY and EXTRA_IDS name."""
  name = data.vocabulary
  if not name:
    raise UserError(
      "VOCABULARY is empty; give 'bytes', 'characters:…' or the path of a"
      " SentencePiece model or of a folder with a tokenizer; an empty one takes"
      " that of INITIAL_CHECKPOINT_PATH, or of a task whose module registers it"
      f" when it is imported; {_MAKE}"
    )
  if name == "bytes" or name.startswith("characters:"):
    return load(name, data.extra_ids)
  paths = [files.local_path(name)]
  if folders.data_dir:
    paths.append(Path(folders.data_dir) / name)
  for path in paths:
    if path.is_dir() or (path.suffix == gguf_file.SUFFIX and path.is_file()):
      return _of_folder(path, data, folders)
    if path.is_file():
      return load(path, data.extra_ids)
  beside = {p.name for path in paths for p in path.parent.glob("*")}
  near = difflib.get_close_matches(paths[0].name, sorted(beside))
  hint = f"; did you mean {' or '.join(near)} there?" * bool(near)
  data_dir = ", or --data_dir or GKD_DATA_DIR" * (not folders.data_dir)
  raise UserError(
    f"VOCABULARY {name!r} is not a file or folder here nor in the data folder"
    f" {folders.data_dir or '(none is set)'}{hint}; give its path{data_dir};"
    f" {_MAKE}"
  )


def _of_folder(folder: Path, data: DataConfig, folders: Folders) -> Vocabulary:
  """The tokenizer of a folder or GGUF file, with its extra ids."""
  vocabulary = tokenizer_folder.load(folder)
  if vocabulary is None:
    raise UserError(
      f"VOCABULARY {data.vocabulary!r} is a folder without a tokenizer; give"
      " one with spiece.model, tokenizer.json or ByT5's tokenizer_config.json,"
      " or a run or saved model with vocabulary/"
    )
  extra_ids = getattr(vocabulary, "extra_ids", 0)
  if data.extra_ids != extra_ids:
    # That of a task's file is for the vocabulary that the file names.
    why = f"the tokenizer in {folder} has {extra_ids} extra ids"
    configuration.refuse_idle_flags([(["EXTRA_IDS"], why)])
  if vocabulary.kind != "sentencepiece" or vocabulary.path.is_file():
    return vocabulary
  # seqio reads files: one that was rebuilt is written first.
  name = f"tokenizer-{vocabulary.sha256[:12]}"
  copy = Path(folders.cache_dir) / FOLDER / name
  return from_spec(vocabulary.save(copy), copy)
