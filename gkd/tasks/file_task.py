"""A task from files of rows that a configuration names (`DATA_FILES`)."""

import functools
import os

from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import file_rows
from gkd.text import metrics
from gkd.text import postprocess
from gkd.text.data_files import DataFiles


def register(
  data_dir: str | os.PathLike | None,
  vocabulary: features.AnyVocabulary,
  *,
  task: str,
  data_files: DataFiles,
) -> None:
  """Registers the task of these files, replacing one of the same name."""
  splits = file_rows.splits(data_dir, data_files.files)
  fields = data_files.columns
  with_references = "references" in fields
  with_task = "task" in fields
  post = postprocess.references if with_references else postprocess.strip
  post = postprocess.answer_of_task if with_task else post
  features.add_task(
    task,
    sources.rows_source(
      functools.partial(file_rows.rows, data_dir, splits, fields),
      tuple(splits),
      with_references=with_references,
      texts=[name for name in ("task", "teacher") if name in fields],
    ),
    vocabulary,
    postprocess=post,
    metrics=[
      getattr(metrics, name) for name in data_files.settings()["metrics"]
    ],
  )
