"""What a program costs: products of its trace, collectives that it compiled to.

XLA's own cost analysis counts the body of a loop once; here it is multiplied by
the loop's length, which for decoding is the longest target.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import math
import re
from typing import Any
from typing import NamedTuple

import jax
from jax.extend import core

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


class Products(NamedTuple):
  """Matrix products of a whole program, all devices together.

  Attributes:
    flops: multiply-adds times two.
    weights: bytes of factors and results without a batch axis.
    activations: bytes of the others.
  """

  flops: float = 0.0
  weights: float = 0.0
  activations: float = 0.0

  def __add__(self, other: "Products") -> "Products":
    return Products(*(a + b for a, b in zip(self, other, strict=True)))

  def __mul__(self, times: float) -> "Products":
    return Products(*(times * a for a in self))


def products(jaxpr: Any, trips: int) -> Products:
  """The matrix products of a trace.

  Args:
    jaxpr: closed or open.
    trips: of a loop whose length the program decides.
  """
  total = Products()
  for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
      total += _product(equation)
      continue
    inner = [products(part, trips) for part in _parts(params)]
    if name == "cond":  # the dearest branch
      total += max(inner, default=Products())
      continue
    times = {"scan": params.get("length"), "while": trips}.get(name, 1)
    total += sum(inner, Products()) * times
  return total


class Collective(NamedTuple):
  """Equal collectives of a compiled program.

  Attributes:
    kind: "all-gather", …
    shape: of its largest result on one device, "f32[32,512]".
    count: how often it runs.
    size: bytes of that result.
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
        shape, size = max(_arrays(found[1]), key=lambda array: array[1])
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


def _parts(params: Mapping[str, Any]) -> Iterator[Any]:
  """The programs among the parameters of an equation."""
  for value in jax.tree.leaves(
    list(params.values()),
    is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr),
  ):
    if isinstance(value, core.Jaxpr | core.ClosedJaxpr):
      yield value


def _product(equation: Any) -> Products:
  """Of one dot_general; a matrix of two axes counts as weights."""
  (contracting, _), _ = equation.params["dimension_numbers"]
  left, right = (x.aval for x in equation.invars)
  (out,) = (x.aval for x in equation.outvars)
  flops = 2.0 * out.size * math.prod(left.shape[i] for i in contracting)
  arrays = left, right, out
  weights = sum(_bytes(a) for a in arrays if a.ndim <= 2)
  return Products(flops, weights, sum(map(_bytes, arrays)) - weights)


def _bytes(aval: Any) -> float:
  return float(aval.size * aval.dtype.itemsize)


def _arrays(result: str) -> list[tuple[str, int]]:
  """Shape and bytes of the arrays of an instruction's result."""
  found = []
  for kind, bits, dimensions in _ARRAY.findall(result):
    size = math.prod(int(n) for n in dimensions.split(",") if n)
    shape = f"{kind}[{dimensions}]"
    found.append((shape, math.ceil(size * int(bits or 8) / 8)))
  return found
