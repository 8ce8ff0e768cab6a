"""What the user wrote into a configuration, and whether anything reads it.

gin accepts a value that nobody asks for: a misspelt `TRIAN_STEPS = 2` in a file
trains for another number of steps, and a temperature of the teacher does
nothing under cross-entropy. Both end in one line here. Files of `configs/` are
shared by several runs and may hold more than one of them reads.
"""

from collections.abc import Iterable
from collections.abc import Set
import dataclasses
from pathlib import Path
import re

from gkd.config import messages
from gkd.types import UserError

# (scope, selector) of a binding, as gin has it; a macro's scope is its name.
Key = tuple[str, str]
_MACRO = "gin.macro"
# Choices of a method: one that the method does not read was meant for another.
_OF_METHODS = {
  "BEAM_ALPHA",
  "BEAM_SIZE",
  "CHUNK_SIZE",
  "DIVERGENCE",
  "FIXED_SOURCE",
  "GRANULARITY",
  "LABEL_SMOOTHING",
  "SAMPLING_TEMPERATURE",
  "SAMPLING_TOP_K",
  "SAMPLING_TOP_P",
  "STUDENT_DATA_FRACTION",
  "STUDENT_TEMPERATURE",
  "TEACHER_TEMPERATURE",
  "Z_LOSS",
}


@dataclasses.dataclass(frozen=True)
class Given:
  """What stands in the user's own files and on the command line.

  Attributes:
    files: {name of a macro: file that sets it last}.
    flags: {key of a binding: its name as it was written}.
    in_files: macros with a value in any file, ours included.
  """

  files: dict[str, str] = dataclasses.field(default_factory=dict)
  flags: dict[Key, str] = dataclasses.field(default_factory=dict)
  in_files: set[str] = dataclasses.field(default_factory=set)

  def refuse_unknown(self, referenced: Set[str], folder: Path) -> None:
    """Every name of the user's files must be one that something asks for.

    Args:
      referenced: names of macros that some binding refers to.
      folder: of our own files; a name that these know may be for another
        command that reads the same file.
    """
    unread = [name for name in self.files if name not in referenced]
    if not unread:
      return
    known = referenced | _names_in(folder)
    for name in unread:
      if name not in known:
        raise UserError(
          f"{self.files[name]}: nothing reads {name!r}; did you mean"
          f" {messages.nearest(name, known)}? Correct the name or leave it out"
        )

  def refuse_idle(self, reached: Set[Key], what: str) -> None:
    """Nothing that was given for this run may do nothing.

    On the command line that is every value, in files the choices of a method.

    Args:
      reached: keys of all bindings that building the run reads.
      what: is built, for the message.
    """
    idle = [
      f"--gin.{text}" for key, text in self.flags.items() if key not in reached
    ]
    macros = {name for name, selector in reached if selector == _MACRO}
    idle += [
      f"{name} in {file}"
      for name, file in self.files.items()
      if name in _OF_METHODS and name not in macros
    ]
    if idle:
      raise UserError(
        f"{idle[0]} has no effect: nothing in this {what} reads it; leave it"
        " out, or choose the method, component or file that does"
      )

  def refuse_idle_flags(self, names: Iterable[str], why: str) -> None:
    """Refuses these macros on the command line.

    Not those that stand in no file: without a value gin builds nothing.
    """
    for name in names:
      if (name, _MACRO) in self.flags and name in self.in_files:
        raise UserError(f"--gin.{name} has no effect: {why}; leave it out")


def _names_in(folder: Path) -> set[str]:
  """Macros that any gin file below a folder sets or asks for."""
  names: set[str] = set()
  for file in folder.rglob("*.gin"):
    text = file.read_text("utf-8")
    names |= set(re.findall(r"^(\w+) *=", text, re.MULTILINE))
    names |= set(re.findall(r"%(\w+)", text))
  return names
