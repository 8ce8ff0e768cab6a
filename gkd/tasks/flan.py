"""Instruction tuning on a mixture of tasks with templates, as FLAN.

`flan.json` of the data directory has the files of each task and its templates,
texts around columns of their rows; tasks and files are the user's:

  {"riddles": {
    "files": {"train": "riddles.jsonl", "validation": "more_riddles.csv"},
    "templates": [
      {"inputs": "Solve this riddle: {riddle}", "targets": "{answer}"},
      {"inputs": "What is the riddle of {answer}?", "targets": "{riddle}"}],
    "metrics": ["exact_match"]}}

Each is a task of its name, and `flan` the mixture of all, in proportion to
their training rows up to 3,000, as in Wei et al. 2022 (arXiv:2109.01652). The
template of a row follows from a hash of its content: FLAN's own draws one.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import functools
import hashlib
import json
import os
from typing import Any

import seqio

from gkd import files
from gkd.errors import UserError
from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import file_rows
from gkd.text import metrics
from gkd.text import postprocess
from gkd.text import raw_files
from gkd.text.data_files import DataFiles

MIXTURE = "flan"
_FILE = "flan.json"
_MOST_ROWS = 3000  # that count for the rate of a task
_TASK = {
  "files": {str: str},
  "templates": [{"inputs": str, "targets": str}],
}
_REMEDY = "write it as the docstring of gkd.tasks.flan says"


def register(
  data_dir: str | os.PathLike | None, vocabulary: features.AnyVocabulary
) -> None:
  """Registers the tasks of `flan.json` and their mixture, or replaces them."""
  tasks = _read(data_dir)
  for name, task in tasks.items():
    parts = [
      DataFiles(
        files=task["files"], fields=template, metrics=task.get("metrics")
      )
      for template in task["templates"]
    ]
    splits = file_rows.splits(data_dir, task["files"])
    features.add_task(
      name,
      sources.rows_source(
        functools.partial(_rows, data_dir, name, splits), tuple(splits)
      ),
      vocabulary,
      postprocess=postprocess.strip,
      metrics=[getattr(metrics, n) for n in parts[0].settings()["metrics"]],
    )
  if MIXTURE in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.remove(MIXTURE)
  rate = functools.partial(seqio.mixing_rate_num_examples, maximum=_MOST_ROWS)
  seqio.MixtureRegistry.add(MIXTURE, [*tasks], default_rate=rate)


def _read(data_dir) -> dict[str, Any]:
  path = raw_files.find(data_dir, _FILE)
  tasks = files.read_json(path, {}, _REMEDY)
  files.check_types(
    path, tasks, dict.fromkeys(tasks, _TASK), _REMEDY, required=True
  )
  for name, task in tasks.items():
    unknown = task.keys() - {*_TASK, "metrics"}
    for template in task["templates"]:
      unknown |= template.keys() - {"inputs", "targets"}
    if unknown or not task["templates"]:
      what = (
        f"{', '.join(sorted(unknown))} in" if unknown else "no templates of"
      )
      raise UserError(f"{path} has {what} {name!r}; {_REMEDY}")
  return tasks


def _rows(data_dir, name: str, splits: Mapping[str, list[str]], split: str):
  # Read here again: the file is then in the key of a cache.
  templates = _read(data_dir)[name]["templates"]
  choose = functools.partial(_template, templates)
  return file_rows.rows(data_dir, splits, choose, split)


def _template(
  templates: Sequence[Mapping[str, str]], columns: Mapping[str, Any]
) -> Mapping[str, str]:
  """The template of a row, the same wherever the row stands."""
  content = json.dumps(columns, sort_keys=True, default=str)
  digest = hashlib.blake2b(content.encode(), digest_size=8).digest()
  return templates[int.from_bytes(digest, "big") % len(templates)]
