"""Collectives of a compiled program, as often as loops run them."""

from collections.abc import Mapping
import math
import re
from typing import NamedTuple

_KINDS = (
  *("all-gather", "all-reduce", "reduce-scatter", "all-to-all"),
  "collective-permute",
)
_COLLECTIVE = re.compile(
  rf"= (\([^=]*?\)|\S+) ({'|'.join(_KINDS)})(?:-start)?\(.*"
  r"channel_id=(\d+)"
)
_CALLED = re.compile(
  r"\b(body|calls|to_apply|branch_computations)=\{?(%?[\w.%, -]+)"
)
_HEADER = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONDITION = re.compile(r"condition=%?([\w.-]+)")
_CONSTANT = re.compile(r" constant\((\d+)\)")


class Collective(NamedTuple):
  """Equal collectives of a compiled program.

  Attributes:
    kind: "all-gather", …
    shape: of its largest result on one device, "f32[32,512]".
    count: how often it runs.
    size: bytes of its results; several may be joined in one.
  """

  kind: str
  shape: str
  count: int
  size: int


def collectives(hlo: str, trips: int) -> list[Collective]:
  """The collectives of an optimized program's text, the dearest first.

  Args:
    hlo: `compiled.as_text()`.
    trips: of a loop that does not say how often it runs.
  """
  bodies, entry = _computations(hlo)
  # Of an asynchronous one several computations hold parts.
  by_channel: dict[str, Collective] = {}

  def visit(name: str, times: int) -> None:
    for line in bodies.get(name, ()):
      if found := _COLLECTIVE.search(line):
        arrays = _arrays(found[1])
        shape, size = max(arrays, key=lambda array: array[1])
        # Of an asynchronous one the operands stand beside the results.
        if f"{found[2]}-start(" not in line:
          size = sum(array[1] for array in arrays)
        before = by_channel.get(found[3])
        if before is None or before.count < times:
          by_channel[found[3]] = Collective(found[2], shape, times, size)
      for kind, names in _CALLED.findall(line):
        inner = times
        if kind == "body":
          inner *= _trips(line, bodies, trips)
        for called in names.replace("%", "").split(","):
          visit(called.strip(), inner)

  visit(entry, 1)
  merged: dict[tuple[str, str, int], int] = {}
  for kind, shape, count, size in by_channel.values():
    key = kind, shape, size
    merged[key] = merged.get(key, 0) + count
  found = [Collective(k, s, n, size) for (k, s, size), n in merged.items()]
  return sorted(found, key=lambda c: -c.count * c.size)


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
  """The lines of each computation, and the name of the first to run."""
  bodies: dict[str, list[str]] = {}
  entry, lines = "", []
  for line in hlo.splitlines():
    if header := _HEADER.match(line.strip()):
      lines = bodies[header[2]] = []
      entry = header[2] if header[1] else entry
    else:
      lines.append(line)
  return bodies, entry


def _trips(line: str, bodies: Mapping[str, list[str]], unknown: int) -> int:
  """How often a loop runs: as it says, or up to what it is compared with."""
  if known := _TRIPS.search(line):
    return int(known[1])
  condition = bodies.get(_CONDITION.search(line)[1], ())
  constants = _CONSTANT.findall("\n".join(condition))
  return max(map(int, constants), default=unknown)


def _arrays(result: str) -> list[tuple[str, int]]:
  """Shape and bytes of the arrays of an instruction's result."""
  found = []
  for kind, bits, dimensions in _ARRAY.findall(result):
    size = math.prod(int(n) for n in dimensions.split(",") if n)
    shape = f"{kind}[{dimensions}]"
    found.append((shape, math.ceil(size * int(bits or 8) / 8)))
  return found
