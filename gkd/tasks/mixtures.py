"""Mixtures of seqio's registry: their tasks, and the rates as numbers.

Usage:
  mixture = find("my_mixture", "my_package.tasks", data_dir, vocabulary)
  rates(mixture, "train", {"gsm8k": 6954, "svamp": 1000})
"""

from collections.abc import Mapping
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

  Raises:
    UserError: a function asks for the size of another split that its source
      does not know, or fails otherwise.
  """
  found = {}
  for task in mixture.tasks:
    _say_size(task, split, rows[task.name])
    try:
      found[task.name] = float(mixture.get_rate(task))
    except Exception as error:
      raise UserError(
        f"the rate of task {task.name!r} in mixture {mixture.name!r} cannot be"
        f" computed ({type(error).__name__}: {error}); register a number, or a"
        f" function that asks for the size of split {split!r} alone"
      ) from error
  return found


def _say_size(task: seqio.Task, split: str, rows: int) -> None:
  """Has the task know the size of a split, whatever its source knows."""
  of_source = task.source.num_input_examples
  task.num_input_examples = lambda name: (
    rows if name == split else of_source(name)
  )
