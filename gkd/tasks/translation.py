"""English to German: Tatoeba and FLORES-200 from files, WMT14 through TFDS.

Tatoeba: tatoeba.org and manythings.org/anki, CC BY 2.0. WMT14 is the data set
of the T5 task `wmt_t2t_ende_v003`, whose prefix all tasks here use.
"""

import functools
import os

import seqio

from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import metrics
from gkd.text import postprocess

NAMES = ("tatoeba_ende", "flores200_ende", "wmt14_ende")
PREFIX = "translate English to German: "
WMT14 = "wmt_t2t_translate/de-en:1.0.0"

_TATOEBA_FILES = {
  "train": "translation/tatoeba_ende_train.jsonl.gz",
  "validation": "translation/tatoeba_ende_dev.jsonl.gz",
  "test": "translation/tatoeba_ende_test.jsonl.gz",
}
_FLORES_FILES = {"test": "translation/flores200_devtest_ende.jsonl.gz"}


def register(
  data_dir: str | os.PathLike | None, vocabulary: features.AnyVocabulary
) -> None:
  """Registers every task of this family; again replaces them."""
  to_row = functools.partial(sources.prefixed, PREFIX)
  features.add_task(
    "tatoeba_ende",
    sources.jsonl_source(
      data_dir,
      _TATOEBA_FILES,
      to_row,
      with_references=True,
      # The file goes from short to long; a prefix of it would be baby talk.
      shuffled=("train",),
    ),
    vocabulary,
    postprocess=postprocess.references,
    metrics=[metrics.bleu],
  )
  features.add_task(
    "flores200_ende",
    sources.jsonl_source(data_dir, _FLORES_FILES, to_row),
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


@seqio.map_over_dataset
def _from_wmt(example):
  return {"inputs": PREFIX + example["en"], "targets": example["de"]}
