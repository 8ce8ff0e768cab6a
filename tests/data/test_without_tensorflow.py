"""Once a cache is there, training needs no TensorFlow."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np

from gkd.data import writer
from gkd.data.builder import cache_key
from gkd.data.cache import Row
from gkd.text.chain_addition import CHARACTERS
from gkd.text.chain_addition import ChainAddition
from gkd.text.vocabulary import CharacterVocabulary

ABSENT = ("tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio")


def write_cache(folder, split):
  """A cache of the task of test/tiny.gin, where its command looks for it."""
  vocabulary = CharacterVocabulary(CHARACTERS)
  problems = ChainAddition(min_terms=3, max_terms=3).problems(split, 32)
  rows = (
    Row(
      np.array([*vocabulary.encode(problem.inputs), 1]),
      np.array([*vocabulary.encode(problem.targets), 1]),
      problem.inputs,
      problem.answer,
    )
    for problem in problems
  )
  info = {
    "task": "chain_addition_easy",
    "split": split,
    "lengths": {"inputs": 16, "targets": 32},
    "overlong": "truncate",
    "vocabulary": vocabulary,
    "postprocess": "gkd.text.postprocess:chain_answer",
    "metrics": ["gkd.text.metrics:accuracy"],
    # Made where this package is; it stands on no machine but that one.
    "key_format": cache_key.FORMAT,
    "sources": {
      "gkd.text.chain_addition": cache_key.source_hash(
        "gkd.text.chain_addition"
      ),
      "package_of_another_machine.tasks": "0" * 64,
    },
  }
  writer.write_rows(folder / info["task"] / f"{split}-0", rows, info)


def test_a_run_trains_where_importing_tensorflow_raises(tmp_path):
  """From the cache and through the loader, as the command does it."""
  for split in ("train", "validation"):
    write_cache(tmp_path / "caches", split)
  code = f"""
    import sys

    # As if they were not installed: importing raises, looking up finds None.
    sys.modules.update(dict.fromkeys({ABSENT!r}))
    from gkd.cli.main import main

    for name in {ABSENT!r}:
      try:
        __import__(name)
      except ImportError:
        continue
      raise AssertionError(name + " can be imported")
    sys.exit(main(sys.argv[1:]))
  """
  arguments = [
    "train",
    "--gin_file=test/sft.gin",
    f"--cache_dir={tmp_path / 'caches'}",
    f"--gin.MODEL_DIR={tmp_path / 'run'}",
    "--gin.TRAIN_STEPS=2",
    "--gin.TRAIN_LIMIT=32",
    "--gin.REPORT_PERIOD=1",
  ]
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code), *arguments],
    env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  losses = {
    line["step"]: line["train/loss"]
    for line in map(json.loads, lines)
    if "train/loss" in line
  }
  assert set(losses) == {1, 2}
