"""Bindings of a configuration that was kept, read without gin."""

import re


def parse(text: str) -> dict[str, str]:
  """{binding: value} of a gin file, values as they are written.

  Imports, includes and comments are left out; values may span lines.
  """
  bindings: dict[str, str] = {}
  pending = ""
  for raw in text.splitlines():
    line = _strip_comment(raw).rstrip()
    pending = f"{pending} {line.strip()}".strip().removesuffix("\\").rstrip()
    if not pending:
      continue
    if line.endswith("\\") or pending.endswith("=") or _depth(pending) > 0:
      continue
    match = re.match(r"([\w./@:-]+)\s*=\s*(.*)$", pending)
    if match:
      bindings[match.group(1)] = match.group(2)
    pending = ""
  return bindings


def _strip_comment(line: str) -> str:
  """The line up to a # that is not inside quotes."""
  return re.match(r"""(?:"[^"]*"|'[^']*'|[^#"'])*""", line).group(0)


def _depth(text: str) -> int:
  """Number of brackets left open, outside quotes."""
  bare = re.sub(r""""[^"]*"|'[^']*'""", "", text)
  return sum(bare.count(c) for c in "([{") - sum(bare.count(c) for c in ")]}")
