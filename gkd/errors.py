"""The one exception for mistakes of users, and lists in its messages.

Needs nothing, not even jax.

Commands that only read files import it from here and start at once; all others
know it as `gkd.types.UserError`.
"""

from collections.abc import Sequence


class UserError(ValueError):
  """A mistake that the user can mend: printed as one line, exit code 2.

  The message says what was given, what was expected and what to do.
  """


def listed(names: Sequence[str], most: int = 4) -> str:
  """["a", "b", "c", "d", "e", "f"] as "a, b, c, d and 2 more"."""
  more = len(names) - most
  return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
