"""English to German: Tatoeba and FLORES-200 from files, WMT14 through TFDS.

Tatoeba: tatoeba.org and manythings.org/anki, CC BY 2.0. WMT14 is the data set
of the T5 task `wmt_t2t_ende_v003`, whose prefix all tasks here use.
"""

import os

import seqio

from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import metrics
from gkd.text import postprocess

NAMES = ("tatoeba_ende", "flores200_ende", "wmt14_ende")
PREFIX = "translate English to German: "
WMT14 = "wmt_t2t_translate/de-en:1.0.0"

_FLORES_FILE = "translation/flores200_devtest_ende.jsonl.gz"
_TATOEBA_FILES = {"train": "train", "validation": "dev", "test": "test"}


def register(
  data_dir: str | os.PathLike | None, vocabulary: features.AnyVocabulary
) -> None:
  """Registers every task of this family; again replaces them."""
  features.add_task(
    "tatoeba_ende",
    sources.rows_source(
      lambda split: _tatoeba(data_dir, split),
      _TATOEBA_FILES,
      with_references=True,
    ),
    vocabulary,
    postprocess=postprocess.references,
    metrics=[metrics.bleu],
  )
  features.add_task(
    "flores200_ende",
    sources.jsonl_source(data_dir, {"test": _FLORES_FILE}, _flores),
    vocabulary,
    postprocess=postprocess.strip,
    metrics=[metrics.bleu],
  )
  features.add_task(
    "wmt14_ende",
    sources.TfdsSource(
      WMT14,
      ("train", "validation", "test"),
      "prepare it with `tfds build` or let it download, and set TFDS_DATA_DIR "
      "to the folder that holds it",
    ),
    vocabulary,
    preprocess=_from_wmt,
    postprocess=postprocess.strip,
    metrics=[metrics.bleu, metrics.bleu_international],
  )


def _tatoeba(data_dir, split: str):
  file = f"translation/tatoeba_ende_{_TATOEBA_FILES[split]}.jsonl.gz"
  rows = sources.read_jsonl(data_dir, file)
  if split == "train":
    # The file goes from short to long; a prefix of it would be baby talk.
    rows = rows.shuffled(0)
  return sources.Mapped(_with_references, rows)


def _with_references(row, number):
  del number
  return {
    "inputs": PREFIX + row["inputs"],
    "targets": row["targets"],
    "references": row.get("references") or [row["targets"]],
  }


def _flores(row):
  return {"inputs": PREFIX + row["inputs"], "targets": row["targets"]}


@seqio.map_over_dataset
def _from_wmt(example):
  return {"inputs": PREFIX + example["en"], "targets": example["de"]}
