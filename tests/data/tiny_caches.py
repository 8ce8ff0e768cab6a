"""Caches of a few rows, of which every row can be told from its tokens."""

import numpy as np

from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.writer import write_rows
from gkd.text.vocabulary import ByteVocabulary

LENGTHS = {"inputs": 5, "targets": 4}


def write(path, rows, *, task="toy", vocabulary=None, **more):
  info = {
    "task": task,
    "split": "train",
    "lengths": LENGTHS,
    "vocabulary": vocabulary or ByteVocabulary(),
    **more,
  }
  return TokenCache(write_rows(path, rows, info))


def numbered(path, count, *, task="toy", first=3, **more):
  """Row i has i + first as its tokens, of different lengths."""
  rows = [
    Row(
      inputs=np.full(1 + i % 5, i + first, np.int32),
      targets=np.full(1 + i % 4, i + first + 30, np.int32),
      prompt=f"{task} {i}",
      reference=i,
    )
    for i in range(count)
  ]
  return write(path, rows, task=task, **more)


def grouped(path, prompts):
  """`prompts` is [(prompt, number of targets), …]; a row's reference is k."""
  rows = [
    Row(np.ones(1, np.int32), np.full(1, k + 3, np.int32), prompt, k)
    for prompt, count in prompts
    for k in range(count)
  ]
  return write(path, rows)
