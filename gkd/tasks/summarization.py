"""Summarization: SciTLDR from files, XSum through TFDS.

SciTLDR (abstract to one sentence) has several reference summaries in its
validation and test splits. XSum cannot be downloaded by TFDS: its articles
must lie in a manual_dir.
"""

import functools
import os

import seqio

from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import metrics
from gkd.text import postprocess

NAMES = ("scitldr", "xsum")
PREFIX = "summarize: "
XSUM = "xsum:1.1.0"

_SCITLDR_FILES = {
  "train": "summarization/scitldr_a_train.jsonl.gz",
  "validation": "summarization/scitldr_a_dev.jsonl.gz",
  "test": "summarization/scitldr_a_test.jsonl.gz",
}


def register(
  data_dir: str | os.PathLike | None, vocabulary: features.AnyVocabulary
) -> None:
  """Registers every task of this family; again replaces them."""
  features.add_task(
    "scitldr",
    sources.jsonl_source(
      data_dir,
      _SCITLDR_FILES,
      functools.partial(sources.prefixed, PREFIX),
      with_references=True,
    ),
    vocabulary,
    postprocess=postprocess.references,
    metrics=[metrics.rouge],
  )
  features.add_task(
    "xsum",
    sources.TfdsSource(
      XSUM,
      ("train", "validation", "test"),
      "its articles must be put by hand into manual_dir, "
      "<TFDS_DATA_DIR>/downloads/manual/ (the file "
      "xsum-extracts-from-downloads.tar.gz, made as "
      "https://github.com/EdinburghNLP/XSum says), then run `tfds build xsum`",
    ),
    vocabulary,
    preprocess=_from_xsum,
    postprocess=postprocess.strip,
    metrics=[metrics.rouge],
  )


@seqio.map_over_dataset
def _from_xsum(example):
  return {
    "inputs": PREFIX + example["document"],
    "targets": example["summary"],
  }
