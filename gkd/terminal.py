r"""Text of others on a terminal: control characters are shown, not obeyed.

A row of data, a model's answer or the name of a file may hold what moves the
cursor, changes the title or turns the direction of writing. What a command
prints goes through an `Escaped` stream, which writes such a character as \x1b.
"""

from collections.abc import Iterator
import contextlib
import re
from typing import Any
from typing import TextIO

# C0 without tab and newline, C1, separators of lines, and directions. A return
# may begin a text, as that of a progress bar does.
_CONTROL = re.compile(
  "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e"
  "\u2066-\u2069]|(?<!^)\r"
)
_OF_PROGRESS_BARS = re.compile(r"(\r|\n|\x1b\[A)*")


class ReaderGone(BrokenPipeError):
  """Who reads what is printed has stopped, as `head` does."""


class Escaped:
  """A stream of text that escapes what a terminal would obey."""

  def __init__(self, stream: TextIO):
    self._stream = stream

  def write(self, text: str) -> int:
    if _OF_PROGRESS_BARS.fullmatch(text) is None:
      text = _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)
    with _reading():
      return self._stream.write(text)

  def flush(self) -> None:
    with _reading():
      self._stream.flush()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
  """Tells a broken pipe of the terminal from that of another process."""
  try:
    yield
  except BrokenPipeError as error:
    raise ReaderGone(*error.args) from error
