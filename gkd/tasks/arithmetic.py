"""Arithmetic tasks: generated chains, GSM8K, SVAMP and AQuA.

`chain_addition*` needs no files. GSM8K has no validation split of its own: 7 in
100 training questions, chosen by a hash of the question so that a repeated
question never lands on both sides, are held out as "validation"; "train" is
the rest, "test" the official test set. SVAMP is a test set only. AQuA is of
multiple choice; its "validation" and "test" are here.

`…_with_solution` has the same rows with the solution in the prompt, for a
privileged teacher. `…_4shot` has four exemplars before each question, those of
Wei et al. 2022 (arXiv:2201.11903): of GSM8K the first four of eight, as in GKD,
section A.5.
"""

from collections.abc import Callable
from collections.abc import Mapping
import functools
import hashlib
import json
import operator
import os

from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import few_shot
from gkd.text import metrics
from gkd.text import numbers
from gkd.text import postprocess
from gkd.text import raw_files
from gkd.text import solutions
from gkd.text.chain_addition import SPLITS
from gkd.text.chain_addition import ChainAddition

CHAINS: Mapping[str, ChainAddition] = {
  "chain_addition": ChainAddition(min_terms=4, max_terms=4, digits=2),
  "chain_addition_easy": ChainAddition(min_terms=3, max_terms=3, digits=2),
  "chain_addition_hard": ChainAddition(
    min_terms=5, max_terms=6, digits=2, operators="+-"
  ),
}
# The quickstart's teacher is trained on many problems; its students share few.
QUICKSTART = ChainAddition(min_terms=4, max_terms=4, digits=2, min_digits=2)
SIZES: Mapping[str, int] = {"train": 40_000, "validation": 500, "test": 1_000}
QUICKSTART_SIZES: Mapping[str, int] = {**SIZES, "train": 2_000}
# A task with that at the end of its name has each solution in the prompt.
WITH_SOLUTION = "_with_solution"
FOUR_SHOT = "_4shot"
_EXEMPLARS = {  # in arithmetic/cot_prompts.json
  "gsm8k": "gsm8k_8shot_wei2022",
  "svamp": "gsm8k_8shot_wei2022",
  "aqua": "aqua_4shot_wei2022",
}
NAMES = (
  *CHAINS,
  *(name + WITH_SOLUTION for name in CHAINS),
  *("quickstart_teacher", "quickstart", "gsm8k", "gsm8k" + WITH_SOLUTION),
  *("svamp", "aqua"),
  *(name + FOUR_SHOT for name in _EXEMPLARS),
)

_VALIDATION_PARTS = 7  # of 100


def register(
  data_dir: str | os.PathLike | None, vocabulary: features.AnyVocabulary
) -> None:
  """Registers every task of this family; again replaces them."""
  for name, chains in CHAINS.items():
    register_chains(name, chains, vocabulary)
    register_chains(
      name + WITH_SOLUTION, chains, vocabulary, rows=_solved_chain_rows
    )
  register_chains("quickstart_teacher", QUICKSTART, vocabulary)
  # Another seed: other problems than the teacher's.
  register_chains(
    "quickstart", QUICKSTART, vocabulary, sizes=QUICKSTART_SIZES, seed=1
  )
  numeric = (metrics.answer_accuracy, metrics.answer_accuracy_with_calculator)
  choice = (metrics.choice_accuracy,)
  for name, rows, splits, accuracies in (
    ("gsm8k", _gsm8k, SPLITS, numeric),
    ("gsm8k" + WITH_SOLUTION, _solved_gsm8k, SPLITS, numeric),
    ("svamp", _svamp, ("test",), numeric),
    ("aqua", _aqua, ("validation", "test"), choice),
  ):
    tasks = {name: rows}
    if name in _EXEMPLARS:
      tasks[name + FOUR_SHOT] = functools.partial(_four_shot, name, rows)
    for task, task_rows in tasks.items():
      features.add_task(
        task,
        sources.rows_source(functools.partial(task_rows, data_dir), splits),
        vocabulary,
        postprocess=postprocess.strip,
        metrics=accuracies,
      )


def register_chains(
  name: str,
  chains: ChainAddition,
  vocabulary: features.AnyVocabulary,
  *,
  sizes: Mapping[str, int] = SIZES,
  seed: int = 0,
  rows: Callable[..., list[dict[str, str]]] | None = None,
) -> None:
  """Registers one family of generated problems under `name`.

  Args:
    name: name in seqio's registry.
    chains: the difficulty.
    vocabulary: any that has the characters of `gkd.text.chain_addition`.
    sizes: different problems per split; a smaller size has the first of them.
    seed: another seed, other problems of the same splits.
    rows: makes the rows of a split; None for problems and solutions.
  """
  # Not a closure: these arguments are part of the key of a cache.
  rows = functools.partial(rows or _chain_rows, chains, dict(sizes), seed)
  features.add_task(
    name,
    sources.rows_source(rows, tuple(sizes), generated=True),
    vocabulary,
    postprocess=postprocess.chain_answer,
    metrics=[metrics.accuracy],
  )


def _chain_rows(chains, sizes, seed, split: str):
  return [
    {"inputs": problem.inputs, "targets": problem.targets}
    for problem in chains.problems(split, sizes[split], seed)
  ]


def _solved_chain_rows(chains, sizes, seed, split: str):
  return [
    row | {"inputs": row["inputs"] + row["targets"]}
    for row in _chain_rows(chains, sizes, seed, split)
  ]


def _gsm8k(data_dir, split: str):
  file = "test" if split == "test" else "train"
  path = f"arithmetic/gsm8k_{file}.jsonl.gz"
  fields = operator.itemgetter("inputs", "targets")
  for question, solution in sources.read_jsonl(data_dir, path, fields):
    if file == "test" or _held_out(question) == (split == "validation"):
      yield {
        "inputs": solutions.plain_text(question),
        "targets": solutions.rewrite_solution(solution),
      }


def _solved_gsm8k(data_dir, split: str):
  for row in _gsm8k(data_dir, split):
    yield row | {"inputs": f"{row['inputs']} Solution: {row['targets']}"}


def _held_out(question: str) -> bool:
  content = " ".join(question.lower().split())
  digest = hashlib.blake2b(content.encode(), digest_size=8).digest()
  return int.from_bytes(digest, "big") % 100 < _VALIDATION_PARTS


def _svamp(data_dir, split: str):
  path = f"arithmetic/svamp_{split}.jsonl.gz"
  for line in sources.read_jsonl(data_dir, path):
    answer = numbers.canonical(line["targets"])
    yield {
      "inputs": solutions.plain_text(line["inputs"]),
      "targets": solutions.answer_sentence(answer),
    }


def _aqua(data_dir, split: str):
  file = "dev" if split == "validation" else split
  path = f"arithmetic/aqua_{file}.jsonl.gz"
  for line in sources.read_jsonl(data_dir, path):
    # "A)21" becomes "(a) 21", as in the exemplars.
    options = [f"({o[0].lower()}) {o[2:].strip()}" for o in line["options"]]
    question = f"{line['question']} Answer Choices: {' '.join(options)}"
    question = solutions.plain_text(question).removesuffix(".")
    reason = solutions.plain_text(line["rationale"])
    answer = solutions.answer_sentence(f"({line['correct'].lower()})")
    yield {"inputs": question, "targets": f"{reason} {answer}"}


def _four_shot(name: str, rows, data_dir, split: str):
  path = raw_files.find(data_dir, "arithmetic/cot_prompts.json")
  solved = json.loads(path.read_text("utf-8"))[_EXEMPLARS[name]][:4]
  examples = [(one["question"], one["answer"]) for one in solved]
  for row in rows(data_dir, split):
    # T5's vocabulary reads a line end as a blank.
    prompt = few_shot.prompt(examples, row["inputs"])
    yield row | {"inputs": " ".join(prompt.split())}
