"""Matrix products of a program, counted in its trace.

XLA's own cost analysis counts the body of a loop once; here it is multiplied by
the loop's length.

  flops.products(jax.jit(f).trace(*arguments).jaxpr, trips=1).flops
"""

from collections.abc import Iterator
from collections.abc import Mapping
import math
from typing import Any
from typing import NamedTuple

import jax
from jax.extend import core


class Products(NamedTuple):
  """Matrix products of a whole program, all devices together.

  Attributes:
    flops: multiply-adds times two.
    weights: bytes of factors and results without a batch axis.
    activations: bytes of the others.
    kernels: bytes of the larger factor without a batch axis, which is the
      model's where a batch has fewer rows than the model columns.
  """

  flops: float = 0.0
  weights: float = 0.0
  activations: float = 0.0
  kernels: float = 0.0

  def __add__(self, other: "Products") -> "Products":
    return Products(*(a + b for a, b in zip(self, other, strict=True)))

  def __mul__(self, times: float) -> "Products":
    return Products(*(times * a for a in self))


def products(jaxpr: Any, trips: int, *, recomputed: bool = True) -> Products:
  """The matrix products of a trace.

  Args:
    jaxpr: closed or open.
    trips: of a loop whose length the program decides.
    recomputed: count what `jax.checkpoint` computes a second time.
  """
  total = Products()
  for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
    name, params = equation.primitive.name, equation.params
    if not recomputed and _RECOMPUTED in str(equation.source_info.name_stack):
      continue
    if name == "dot_general":
      total += _product(equation)
      continue
    inner = [
      products(part, trips, recomputed=recomputed) for part in _parts(params)
    ]
    if name == "cond":  # the dearest branch
      total += max(inner, default=Products())
      continue
    times = {"scan": params.get("length"), "while": trips}.get(name, 1)
    total += sum(inner, Products()) * times
  return total


# How JAX names what the backward pass of `jax.checkpoint` computes again.
_RECOMPUTED = "rematted_computation"


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
  activations = sum(map(_bytes, arrays)) - weights
  kernel = max((_bytes(a) for a in (left, right) if a.ndim <= 2), default=0.0)
  return Products(flops, weights, activations, kernel)


def _bytes(aval: Any) -> float:
  return float(aval.size * aval.dtype.itemsize)
