"""A data directory with a few rows of each file, and T5-like vocabularies."""

import gzip
import json

import pytest

from gkd.tasks import arithmetic
from gkd.tasks import instructions
from gkd.tasks import summarization
from gkd.tasks import translation
from gkd.text.chain_addition import CHARACTERS
from gkd.text.chain_addition import ChainAddition
from gkd.text.vocabulary import CharacterVocabulary
from gkd.text.vocabulary import SentencePieceVocabulary

FAMILIES = (arithmetic, translation, summarization, instructions)
CHARACTER = CharacterVocabulary(CHARACTERS)

TATOEBA = [
  ("I see.", "Ich verstehe.", ["Ich verstehe.", "Aha."]),
  ("Tom lives here.", "Tom wohnt hier.", ["Tom wohnt hier.", "Tom lebt hier."]),
  ("He came.", "Er kam.", ["Er kam."]),
  ("The apple is red.", "Der Apfel ist rot.", ["Der Apfel ist rot."]),
  ("The pear is green.", "Die Birne ist grün.", ["Die Birne ist grün."]),
]


@pytest.fixture(scope="session")
def rows_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  tatoeba = [
    {"inputs": a, "targets": b, "references": c} for a, b, c in TATOEBA
  ]
  scitldr = [
    {
      "inputs": f"We study {i}.",
      "targets": f"We count {i} red apples here.",
      "references": [],
    }
    for i in range(10)
  ]
  for split in ("train", "dev", "test"):
    _write(folder / f"translation/tatoeba_ende_{split}.jsonl.gz", tatoeba)
    _write(folder / f"summarization/scitldr_a_{split}.jsonl.gz", scitldr)
  for split in ("train", "test"):
    gsm8k = [
      {
        "inputs": f"{split} {i}: add 1",
        "targets": f"It is {i}+1 = <<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}",
      }
      for i in range(200)
    ]
    _write(folder / f"arithmetic/gsm8k_{split}.jsonl.gz", gsm8k)
  svamp = [{"inputs": "Take 25 from 76. What?", "targets": "51"}]
  _write(folder / "arithmetic/svamp_test.jsonl.gz", svamp)
  return folder


@pytest.fixture(scope="session")
def pieces(spiece_file):
  """A SentencePiece vocabulary with byte fallback and T5's extra ids."""
  return SentencePieceVocabulary(spiece_file, extra_ids=100)


@pytest.fixture
def registered(rows_dir, pieces):
  """Every task of the package, and the generated "tiny_chains"."""
  for family in FAMILIES:
    family.register(rows_dir, pieces)
  sizes = {"train": 30, "validation": 10, "test": 20}
  arithmetic.register_chains(
    "tiny_chains", ChainAddition(), CHARACTER, sizes=sizes
  )


def _write(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  with gzip.open(path, "wt", encoding="utf-8") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
