"""The one exception for mistakes of users, and what its messages are made of.

Needs nothing, not even jax.

Commands that only read files import it from here and start at once; all others
know it as `gkd.types.UserError`.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import numbers
from typing import Any


class UserError(ValueError):
  """A mistake that the user can mend: printed as one line, exit code 2.

  The message says what was given, what was expected and what to do.
  """


def check_number(
  name: str,
  value: Any,
  is_allowed: Callable[[Any], bool],
  expected: str,
  kind: type = numbers.Real,
) -> None:
  """Raises a UserError for what is no number, True and False included.

  Args:
    name: the user's name for the value.
    value: anything.
    is_allowed: whether a number is in range; false for NaN.
    expected: the range in words.
    kind: `numbers.Integral` for whole numbers alone.
  """
  is_number = isinstance(value, kind) and not isinstance(value, bool)
  if not is_number or not is_allowed(value):
    raise UserError(f"{name} is {value!r}; expected {expected}")


def is_text(value: str) -> bool:
  """Whether files can have it as name and content: UTF-8 without NUL."""
  return "\0" not in value and value == value.encode(errors="ignore").decode()


@contextlib.contextmanager
def explaining_memory(remedy: str) -> Iterator[None]:
  """Turns a lack of memory, of a device or of the host, into one line.

  JAX raises what XLA says as a RuntimeError; only its text tells the kind, and
  on a CPU that is INTERNAL where a computation could not be dispatched.

  Raises:
    UserError: memory is out; `remedy` says what takes less of it.
  """
  try:
    yield
  except (MemoryError, RuntimeError) as error:
    text = str(error).strip().partition("\n")[0]
    told = "RESOURCE_EXHAUSTED" in text or "Out of memory" in text
    if isinstance(error, RuntimeError) and not told:
      raise
    reason = text.rpartition(": ")[2].rstrip(".")
    raise UserError(f"memory is out ({reason}); {remedy}") from error


def row_name(number: int) -> str:
  """The row of a split, as messages name it."""
  return f"row {number} (counted from 0)"


def listed(names: Sequence[str], most: int = 4) -> str:
  """["a", "b", "c", "d", "e", "f"] as "a, b, c, d and 2 more"."""
  more = len(names) - most
  return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
