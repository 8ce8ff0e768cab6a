"""SVAMP's one-step stories, with letters in place of numbers.

"Dan had A dollars left … If he had B at the start" is answered by "B - A", as
is usual for models that are trained from nothing: what is learned is which
operation on which numbers, not how digits are copied. The letters of sums and
products are in alphabetical order, so that a story has one right answer. SVAMP
varies its stories: two that differ in a word may stand in different splits.

  TASK_MODULE = 'gkd.experiments.svamp_one_step'
"""

from collections.abc import Iterator
import functools
import hashlib
import os
import re

from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import metrics
from gkd.text import postprocess
from gkd.text import solutions

FILE = "arithmetic/svamp_test.jsonl.gz"
# Parts in 10 of the stories.
SPLITS = {"train": 6, "validation": 1, "test": 3}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_ONE_STEP = re.compile(r"\( (\d+)\.0 ([-+*/]) (\d+)\.0 \)")


def register(
  data_dir: str | os.PathLike | None, vocabulary: features.AnyVocabulary
) -> None:
  """Registers the task "svamp_one_step"."""
  features.add_task(
    "svamp_one_step",
    sources.rows_source(functools.partial(rows, data_dir), tuple(SPLITS)),
    vocabulary,
    postprocess=postprocess.strip,
    metrics=[metrics.accuracy],
  )


def rows(
  data_dir: str | os.PathLike | None, split: str
) -> Iterator[dict[str, str]]:
  """Inputs and targets of a split: a pure function of the file."""
  for line in sources.read_jsonl(data_dir, FILE):
    equation = _ONE_STEP.fullmatch(line["equation"])
    text = solutions.plain_text(line["inputs"]).lower()
    found = dict.fromkeys(_NUMBER.findall(text))
    letters = dict(zip(found, "ABCDEFGH", strict=False))
    if equation is None or not {equation[1], equation[3]} <= letters.keys():
      continue
    if equation[1] == equation[3] or split_of(text) != split:
      continue
    numbers = [letters[equation[1]], letters[equation[3]]]
    if equation[2] in "+*":
      numbers.sort()
    yield {
      "inputs": _NUMBER.sub(lambda match, by=letters: by[match[0]], text),
      "targets": f" {equation[2]} ".join(numbers),
    }


def split_of(text: str) -> str:
  """By the words of a story alone."""
  words = _NUMBER.sub("0", text)
  digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
  names = [name for name, parts in SPLITS.items() for _ in range(parts)]
  return names[int.from_bytes(digest, "big") % 10]
