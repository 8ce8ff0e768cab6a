"""What a terminal would obey is shown instead, and progress bars still work."""

import io

import pytest

from gkd import terminal
from gkd.progress import Progress


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    ("\x1b[31mred\x07\x9b2J", r"\x1b[31mred\x07\x9b2J"),
    ("abc\u202edcb\u2066\u200f\u061c", r"abc\u202edcb\u2066\u200f\u061c"),
    ("done\rgkd: all is well\u2028", r"done\rgkd: all is well\u2028"),
    ("a\tb\nλ → 日本 \U0001f600\n", "a\tb\nλ → 日本 \U0001f600\n"),
  ],
)
def test_control_characters_are_escaped(text, shown):
  stream = io.StringIO()
  print(text, end="", file=terminal.Escaped(stream))
  assert stream.getvalue() == shown


def test_a_progress_bar_is_drawn_as_ever():
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  drawn = []
  for wrap in (lambda stream: stream, terminal.Escaped):
    stream = Terminal()
    written = wrap(stream)
    with Progress(2, stream=written) as outer:
      with Progress(2, stream=written) as inner:
        inner.update()
        inner.print("said")
      outer.update(2)
    drawn.append([stream.getvalue().count(x) for x in ("\r", "\x1b[A", "\\x")])
  assert drawn[0] == drawn[1]
  assert drawn[0][1] > 0
