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

from gkd.types import UserError

# (scope, selector) of a binding, as gin has it; a macro's scope is its name, in
# which its value is evaluated.
Key = tuple[str, str]
MACRO = "gin.macro"
_RENAMED = {
  "EVAL_ALSO": "EVAL_SPLITS",
  "FIRST_STEP": "INITIAL_STEP",
  "FIXED_SOURCE": "OFF_POLICY_SOURCE",
  "GRANULARITY": "MIXING",
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
  "SAMPLING_TEMPERATURE",
  "SAMPLING_TOP_K",
  "SAMPLING_TOP_P",
  "STUDENT_DATA_FRACTION",
  "STUDENT_TEMPERATURE",
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
  """

  files: dict[str, str] = dataclasses.field(default_factory=dict)
  flags: dict[Key, str] = dataclasses.field(default_factory=dict)
  with_value: set[str] = dataclasses.field(default_factory=set)

  def clear(self) -> None:
    """Forgets everything, for another configuration."""
    for values in vars(self).values():
      values.clear()

  def refuse_unknown(self, referenced: Set[str], folder: Path) -> None:
    """Refuses names in the user's files that no binding refers to.

    One that the files of `folder`, ours, know may be for another command.
    """
    unread = [name for name in self.files if name not in referenced]
    known = referenced | _names_in(folder) if unread else referenced
    for name in unread:
      refuse_renamed(name, self.files[name])
      if name not in known:
        raise UserError(
          f"{self.files[name]}: nothing reads {name!r}; did you mean"
          f" {nearest(name, known)}? Correct the name or leave it out"
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


def refuse_renamed(name: str, where: str) -> None:
  """Refuses the earlier name of a macro with the one it has now."""
  if name in _RENAMED:
    raise UserError(
      f"{where}: {name} is called {_RENAMED[name]} now; give {_RENAMED[name]}"
    )


def nearest(name: str, known: Iterable[str]) -> str:
  """The names that were probably meant."""
  names = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
  return " or ".join(names or sorted(known)[:12]) or "another file"


def _names_in(folder: Path) -> set[str]:
  """Macros that any gin file below a folder sets or asks for."""
  names: set[str] = set()
  for file in folder.rglob("*.gin"):
    text = file.read_text("utf-8")
    names |= set(re.findall(r"^(\w+) *=", text, re.MULTILINE))
    names |= set(re.findall(r"%(\w+)", text))
  return names
