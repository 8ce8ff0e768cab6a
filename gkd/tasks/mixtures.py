"""Mixtures of seqio's registry: their tasks, and their rates as numbers."""

from collections.abc import Mapping
import functools
import os

import seqio

from gkd.tasks.features import AnyVocabulary
from gkd.text import task_modules
from gkd.types import UserError


def find(
  name: str,
  task_module: str,
  data_dir: str | os.PathLike | None,
  vocabulary: AnyVocabulary,
) -> seqio.Mixture | None:
  """The mixture that `task_module` registers under `name`, if there is one."""
  task_modules.register(task_module, data_dir, vocabulary)
  if name not in seqio.MixtureRegistry.names():
    return None
  return seqio.MixtureRegistry.get(name)


def rates(
  mixture: seqio.Mixture, split: str, rows: Mapping[str, int]
) -> dict[str, float]:
  """The rate of each task; rates that are functions are computed.

  Args:
    mixture: of the registry.
    split: that the rows are of.
    rows: {task: number of its rows after preprocessing}, which is what
      `seqio.mixing_rate_num_examples` wants to know.
  """
  numbers = {}
  for task in mixture.tasks:
    # Has the task know the size of this split, whatever its source knows.
    task.num_input_examples = functools.partial(
      _size, task.source, {split: rows[task.name]}
    )
    try:
      numbers[task.name] = float(mixture.get_rate(task))
    except Exception as error:
      raise UserError(
        f"the rate of task {task.name!r} in mixture {mixture.name!r} cannot be"
        f" computed ({type(error).__name__}: {error}); register a number, or a"
        f" function that asks for the size of split {split!r} alone"
      ) from error
  return numbers


def _size(source: seqio.DataSource, known: Mapping[str, int], split: str):
  return known[split] if split in known else source.num_input_examples(split)
