"""The form of a page of help, see `gkd.cli.help_pages`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Page:
  """Help of one command.

  Attributes:
    summary: what it does, as it stands in lists; no capital, no full stop.
    text: reads, writes, knobs and resume.
    example: calls that work as they stand.
    codes: exit codes.
  """

  summary: str
  text: str
  example: str
  codes: str = ""

  @property
  def epilog(self) -> str:
    """All but the summary, below the flags."""
    example = self.example.strip("\n")
    codes = self.codes or CODES
    return f"{self.text.strip()}\n\n{codes.strip()}\n\nexample:\n{example}\n"


CODES = """
exit code:
  0 done; 2 a mistake that you can mend, in one line; 130 ctrl-C;
  143 ended by SIGTERM
"""
GIN = """
configuration:
  --gin_file=FILE    a file of configs/ (in the checkout, or in the installed
                     package) or your own; give several, later ones override.
                     The header of each says what it does and lists its knobs
  --gin.NAME=VALUE   sets one knob: --gin.BATCH_SIZE=8
"""
