"""MMLU and BBH: benchmarks of many tasks, answered directly after examples.

MMLU (Hendrycks et al., arXiv:2009.03300): 57 subjects, 5 examples of its "dev"
split each; the test questions are a sample of 20 a subject. BBH (Suzgun et al.,
arXiv:2210.09261): 23 tasks in 27 files, 3 examples each, those of the
chain-of-thought prompts without their reasoning, as "direct" in Chung et al.
2022 (arXiv:2210.11416). Both are scored by exact match and the mean over tasks,
and are for evaluation alone: BBH's rows carry a canary string. Rows are always
shuffled in the same way, so that the first of them are of all tasks.
"""

from collections.abc import Iterator
import functools
import json
import os
import re

from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import few_shot
from gkd.text import metrics
from gkd.text import postprocess
from gkd.text import raw_files

NAMES = ("mmlu", "bbh")

_ANSWER = re.compile(r".*[Ss]o the answer is (.+?)\.?\s*\Z", re.DOTALL)
# Three of BBH's files are one task.
_NUMBER_OF_OBJECTS = re.compile(r"_(three|five|seven)_objects$")


def register(
  data_dir: str | os.PathLike | None, vocabulary: features.AnyVocabulary
) -> None:
  """Registers every task of this family; again replaces them."""
  for name, rows in (("mmlu", _mmlu), ("bbh", _bbh)):
    features.add_task(
      name,
      sources.rows_source(
        functools.partial(rows, data_dir), ("test",), texts=["task"]
      ),
      vocabulary,
      postprocess=postprocess.answer_of_task,
      metrics=[metrics.exact_match_over_tasks],
    )


def _mmlu(data_dir, split: str) -> Iterator[dict[str, str]]:
  del split
  examples: dict[str, list[tuple[str, str]]] = {}
  for line in sources.read_jsonl(data_dir, "instruction/mmlu_dev.jsonl.gz"):
    solved = (line["inputs"], f"({line['targets']})")
    examples.setdefault(line["subject"], []).append(solved)
  path = "instruction/mmlu_test_sample20.jsonl.gz"
  for line in sources.read_jsonl(data_dir, path, shuffled=True):
    subject = line["subject"]
    instruction = (
      "The following are multiple choice questions (with answers) about"
      f" {subject.replace('_', ' ')}."
    )
    yield {
      "inputs": few_shot.prompt(examples[subject], line["inputs"], instruction),
      "targets": f"({line['targets']})",
      "task": subject,
    }


def _bbh(data_dir, split: str) -> Iterator[dict[str, str]]:
  del split
  file = raw_files.find(data_dir, "instruction/bbh_cot_prompts.json")
  prompts = json.loads(file.read_text("utf-8"))
  parsed = {name: _direct(text) for name, text in prompts.items()}
  path = "instruction/bbh.jsonl.gz"
  for line in sources.read_jsonl(data_dir, path, shuffled=True):
    instruction, examples = parsed[line["task"]]
    yield {
      "inputs": few_shot.prompt(examples, line["inputs"], instruction),
      "targets": line["targets"],
      "task": _NUMBER_OF_OBJECTS.sub("", line["task"]),
    }


def _direct(text: str) -> tuple[str, list[tuple[str, str]]]:
  """Instruction and examples of a chain-of-thought prompt, answers alone."""
  instruction, *solved = text.partition("-----\n")[2].split("\n\nQ: ")
  examples = []
  for question, _, reasoning in (s.partition("\nA: ") for s in solved):
    examples.append((question, _ANSWER.match(reasoning)[1]))
  return instruction, examples
