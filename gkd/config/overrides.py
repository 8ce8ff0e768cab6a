"""Values that a user set, and whether anything in the run reads them.

gin accepts a value that nobody asks for: a misspelt `TRIAN_STEPS = 2` in a file
trains for another number of steps, and a temperature of the teacher does
nothing under cross-entropy. Both end in one line here. Files of `configs/` are
shared by several runs and may hold more than one of them reads.
"""

from collections.abc import Iterable
from collections.abc import Set
import dataclasses
import difflib
from pathlib import Path
import re

from gkd.errors import UserError

# (scope, selector) of a binding, as gin has it; a macro's scope is its name, in
# which its value is evaluated.
Key = tuple[str, str]
MACRO = "gin.macro"
_RENAMED = {
  "EVAL_ALSO": "EVAL_SPLITS",
  "FIRST_STEP": "INITIAL_STEP",
  "FIXED_SOURCE": "OFF_POLICY_SOURCE",
  "GRANULARITY": "MIXING",
  # T5X's.
  "CHECKPOINT_PATH": "INITIAL_CHECKPOINT_PATH",
  "EVALUATOR_NUM_EXAMPLES": "EVAL_EXAMPLES",
  "EVAL_OUTPUT_DIR": "MODEL_DIR",
  "INFER_OUTPUT_DIR": "OUTPUT_DIR",
  "LOSS_NORMALIZING_FACTOR": "REDUCTION",
  "MIXTURE_OR_TASK_MODULE": "TASK_MODULE",  # where a file sets that one
  "MODEL": "STUDENT_MODEL",
  "NUM_MODEL_PARTITIONS": "MODEL_PARALLELISM",
  "TRAIN_STEPS_RELATIVE": "TRAIN_STEPS",
  # TRL's.
  "BETA": "divergence.GeneralizedJSD.beta",
  "GRADIENT_ACCUMULATION_STEPS": "MICRO_BATCHES",
  "LMBDA": "STUDENT_DATA_FRACTION",
  "LR": "LEARNING_RATE",
  "MAX_NEW_TOKENS": "TASK_FEATURE_LENGTHS",
  "MAX_STEPS": "TRAIN_STEPS",
  "NUM_TRAIN_EPOCHS": "TRAIN_STEPS",
  "PER_DEVICE_TRAIN_BATCH_SIZE": "BATCH_SIZE",
  "SEED": "RANDOM_SEED",
  "TEMPERATURE": "SAMPLING_TEMPERATURE",
}
# Of T5X, without a counterpart: docs/from_t5x.md says why.
_OF_T5X = {
  "EVALUATOR_USE_MEMORY_CACHE",
  "EVAL_STEPS",
  "JSON_WRITE_N_RESULTS",
  "MODEL_PARALLEL_SUBMESH",
  "SHUFFLE_TRAIN_EXAMPLES",
  "USE_CACHED_TASKS",
  "USE_HARDWARE_RNG",
}
# Choices of a method: one that the method does not read was meant for another.
_OF_METHODS = {
  "BEAM_ALPHA",
  "BEAM_SIZE",
  "CHUNK_SIZE",
  "DIVERGENCE",
  "LABEL_SMOOTHING",
  "MIXING",
  "OFF_POLICY_SOURCE",
  "PROPOSAL",
  "ROLLOUT_HORIZON",
  "ROLLOUT_STALENESS",
  "SAMPLING_DTYPE",
  "SAMPLING_TEMPERATURE",
  "SAMPLING_TOP_K",
  "SAMPLING_TOP_P",
  "STUDENT_DATA_FRACTION",
  "STUDENT_DIVERGENCE",
  "STUDENT_TEMPERATURE",
  "STUDENT_WEIGHT",
  "TEACHER_TEMPERATURE",
  "Z_LOSS",
}


@dataclasses.dataclass(frozen=True)
class Overrides:
  """What stands in the user's own files and on the command line.

  Attributes:
    files: {name of a macro: file that sets it last}.
    flags: {key of a binding: its name as it was written}.
    with_value: macros that have a value without the flags.
    unknown: names on the command line that no file knows.
  """

  files: dict[str, str] = dataclasses.field(default_factory=dict)
  flags: dict[Key, str] = dataclasses.field(default_factory=dict)
  with_value: set[str] = dataclasses.field(default_factory=set)
  unknown: list[str] = dataclasses.field(default_factory=list)

  def clear(self) -> None:
    """Forgets everything, for another configuration."""
    for values in vars(self).values():
      values.clear()

  def refuse_unknown(
    self, referenced: Set[str], folder: Path, command: str
  ) -> None:
    """Refuses names that no binding refers to, all of them at once.

    One in a file that the files of `folder`, ours, know may be for another
    command.
    """
    unread = {name for name in self.files if name not in referenced}
    unread -= _names_in(folder) if unread else set()
    known = (referenced | self.with_value) - unread
    wrong: dict[str, list[str]] = {}
    for name in self.unknown:
      wrong.setdefault("--gin", []).append(_corrected(name, known))
    for name in sorted(unread):
      wrong.setdefault(self.files[name], []).append(_corrected(name, known))
    if wrong:
      lines = [f"{where}: {', '.join(x)}" for where, x in wrong.items()]
      raise UserError(
        f"{'; '.join(lines)}; correct or leave out, see gkd"
        f" {command} --help and docs/from_t5x.md"
      )

  def refuse_unread(self, reached: Set[Key], what: str) -> None:
    """Refuses values that building this run (`what`) does not read.

    On the command line that is every value, in files the choices of a method.
    """
    macros = {name for name, selector in reached if selector == MACRO}
    unread = [
      *(f"--gin.{name}" for k, name in self.flags.items() if k not in reached),
      *(
        f"{name} in {file}"
        for name, file in self.files.items()
        if name in _OF_METHODS - macros
      ),
    ]
    if unread:
      raise UserError(
        f"{unread[0]} has no effect: nothing in this {what} reads it; leave it"
        " out, or choose the method, component or file that does"
      )

  def refuse_idle_flags(self, names: Iterable[str], why: str) -> None:
    """Refuses flags for these macros.

    A macro without any other value is excepted: gin would build nothing.
    """
    for name in names:
      if (name, MACRO) in self.flags and name in self.with_value:
        raise UserError(f"--gin.{name} has no effect: {why}; leave it out")


def _corrected(name: str, known: Iterable[str]) -> str:
  """What is wrong with the name of a macro, and the right one."""
  upper = name.upper()
  if upper in _RENAMED:
    return f"{name} is called {_RENAMED[upper]} here"
  if name in _OF_T5X:
    return f"{name} of T5X has no counterpart"
  close = difflib.get_close_matches(upper, sorted(known), n=3, cutoff=0.6)
  return f"nothing reads {name!r}" + (
    f" (did you mean {' or '.join(close)}?)" * bool(close)
  )


def nearest(name: str, known: Iterable[str]) -> str:
  """The names that were probably meant; "" where none is known."""
  names = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
  return " or ".join(names or sorted(known)[:12])


def _names_in(folder: Path) -> set[str]:
  """Macros that any gin file below a folder sets or asks for."""
  names: set[str] = set()
  for file in folder.rglob("*.gin"):
    text = file.read_text("utf-8")
    names |= set(re.findall(r"^(\w+) *=", text, re.MULTILINE))
    names |= set(re.findall(r"%(\w+)", text))
  return names
