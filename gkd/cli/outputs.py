"""Places that a command will write to, checked before it works for hours.

Nothing is made here: a command that ends in an error leaves no folder behind.
"""

import os
from pathlib import Path

from gkd.errors import UserError


def check_folder(path: str, name: str) -> None:
  """A folder that exists or can be made, and be written to.

  Args:
    path: the folder; "~" is expanded.
    name: of the macro or flag, for the message.
  """
  folder = Path(path).expanduser().absolute()
  nearest = folder
  while not nearest.exists() and nearest != nearest.parent:
    nearest = nearest.parent
  if not nearest.is_dir():
    raise UserError(f"{name} {path!r}: {nearest} is a file; give a folder")
  if not os.access(nearest, os.W_OK | os.X_OK):
    raise UserError(
      f"{name} {path!r}: {nearest} cannot be written to; give another folder"
    )


def check_file(path: str, name: str) -> None:
  """A file that can be written into a folder that exists."""
  file = Path(path).expanduser().absolute()
  if file.is_dir():
    raise UserError(f"{name} {path!r} is a folder; give the name of a file")
  if not file.parent.is_dir():
    raise UserError(
      f"{name} {path!r}: there is no folder {file.parent}; make it or give"
      " another file"
    )
  target = file if file.exists() else file.parent
  if not os.access(target, os.W_OK):
    raise UserError(
      f"{name} {path!r}: {target} cannot be written to; give another file"
    )
