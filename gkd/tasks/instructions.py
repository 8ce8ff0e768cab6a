"""Natural Instructions through TFDS: 1,600 tasks and how each is described.

The prompt is that of Tk-Instruct without examples (Wang et al. 2022,
arXiv:2204.07705); an answer is scored by ROUGE, as there. TFDS has one split,
"train", so that held-out rows are a slice of it: "train[99%:]".
"""

import os

import seqio

from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import metrics
from gkd.text import postprocess

NAMES = ("natural_instructions",)
NATURAL_INSTRUCTIONS = "natural_instructions:1.0.1"


def register(
  data_dir: str | os.PathLike | None, vocabulary: features.AnyVocabulary
) -> None:
  """Registers every task of this family; again replaces them."""
  del data_dir  # TFDS has a folder of its own
  features.add_task(
    "natural_instructions",
    sources.TfdsSource(
      NATURAL_INSTRUCTIONS, ("train",), "run `tfds build natural_instructions`"
    ),
    vocabulary,
    preprocess=_from_natural_instructions,
    postprocess=postprocess.strip,
    metrics=[metrics.rouge],
  )


@seqio.map_over_dataset
def _from_natural_instructions(example):
  definition, text = example["definition"], example["input"]
  return {
    "inputs": "Definition: " + definition + " Input: " + text + " Output:",
    "targets": example["output"],
  }
