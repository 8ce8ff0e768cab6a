"""A data directory with a few rows of each file, and T5-like vocabularies."""

import gzip
import json

import pytest

from gkd.tasks import arithmetic
from gkd.tasks import benchmarks
from gkd.tasks import instructions
from gkd.tasks import summarization
from gkd.tasks import translation
from gkd.text.chain_addition import CHARACTERS
from gkd.text.chain_addition import ChainAddition
from gkd.text.vocabulary import CharacterVocabulary
from gkd.text.vocabulary import SentencePieceVocabulary

FAMILIES = (arithmetic, translation, summarization, instructions, benchmarks)
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
  aqua = {"question": "What is 1 + 1?", "options": ["A)1", "B)2"]}
  aqua |= {"rationale": "1 + 1 = 2\nANS:B", "correct": "B"}
  _write(folder / "arithmetic/aqua_test.jsonl.gz", [aqua])
  solved = [{"question": f"{i} + 1?", "answer": f"{i + 1}."} for i in range(5)]
  names = ("gsm8k_8shot_wei2022", "aqua_4shot_wei2022")
  path = folder / "arithmetic/cot_prompts.json"
  path.write_text(json.dumps(dict.fromkeys(names, solved)))
  mmlu = {"inputs": "Where?\n(A) here\n(B) there", "targets": "B"}
  mmlu["subject"] = "human_aging"
  for name in ("dev", "test_sample20"):
    _write(folder / f"instruction/mmlu_{name}.jsonl.gz", [mmlu])
  bbh = [
    {"inputs": f"Which {n}?", "targets": "(A)", "task": f"sorting_{n}_objects"}
    for n in ("three", "five")
  ]
  _write(folder / "instruction/bbh.jsonl.gz", bbh)
  text = (
    "canary\n-----\nSort.\n\nQ: Which?\nOptions:\n(B) b\n"
    "A: Let's think step by step.\nSo the answer is (A). No.\n"
    "So the answer is (B).\n\nQ: A?\nA: Well. So the answer is yes."
  )
  path = folder / "instruction/bbh_cot_prompts.json"
  path.write_text(json.dumps({row["task"]: text for row in bbh}))
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
