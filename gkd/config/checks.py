"""Checks of single numbers, named as the gin macros that set them.

at_least_one("BATCH_SIZE", batch_size)
"""

from gkd.types import UserError


def at_least_one(name: str, value: int) -> None:
  """Refuses a number below 1; `name` is that of its macro."""
  if value < 1:
    raise UserError(f"{name} is {value}; give at least 1")


def seed(value: int) -> None:
  """Refuses a RANDOM_SEED that is no signed number of 32 bits, as compiled."""
  if not 0 <= value < 1 << 31:
    raise UserError(f"RANDOM_SEED is {value}; give 0 to {(1 << 31) - 1}")
