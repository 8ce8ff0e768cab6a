"""The one exception for mistakes of users; needs nothing, not even jax.

Commands that only read files import it from here and start at once; all others
know it as `gkd.types.UserError`.
"""


class UserError(ValueError):
  """A mistake that the user can mend: printed as one line, exit code 2.

  The message says what was given, what was expected and what to do.
  """
