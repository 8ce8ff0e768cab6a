"""Metrics as mergeable (total, count) pairs: never an average of averages."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gkd.types import Array


@flax.struct.dataclass
class Mean:
  """A weighted mean that can be merged over positions, devices and steps."""

  total: Array
  count: Array

  @classmethod
  def of(cls, values: Array, weights: Array | None = None) -> "Mean":
    """Mean of `values` under `weights` (default all ones, same shape).

    Entries of weight 0 may hold anything, infinities included.
    """
    values = jnp.asarray(values, jnp.float32)
    if weights is None:
      weights = jnp.ones_like(values)
    weights = jnp.broadcast_to(weights, values.shape).astype(jnp.float32)
    kept = jnp.where(weights > 0, values, 0.0)
    return cls(total=jnp.sum(kept * weights), count=jnp.sum(weights))

  def merge(self, other: "Mean") -> "Mean":
    return Mean(self.total + other.total, self.count + other.count)

  def compute(self) -> float:
    """The mean; NaN if nothing was counted."""
    count = float(self.count)
    return float(self.total) / count if count else float("nan")


@jax.tree_util.register_pytree_node_class
class Packed(Mapping[str, Mean]):
  """Means by name in one array [2, N] of totals and counts.

  A program with a hundred small results takes longer to call and to read.
  """

  def __init__(self, names: tuple[str, ...], values: Array):
    self._names, self._values = names, values

  @classmethod
  def of(cls, means: Mapping[str, Mean]) -> "Packed":
    """Inside jit."""
    columns = [jnp.stack([mean.total, mean.count]) for mean in means.values()]
    return cls(tuple(means), jnp.stack(columns, axis=1))

  def __getitem__(self, name: str) -> Mean:
    if name not in self._names:
      raise KeyError(name)
    return Mean(*self._values[:, self._names.index(name)])

  def __iter__(self) -> Iterator[str]:
    return iter(self._names)

  def __len__(self) -> int:
    return len(self._names)

  def tree_flatten(self) -> tuple[tuple[Array], tuple[str, ...]]:
    return (self._values,), self._names

  @classmethod
  def tree_unflatten(cls, names, children) -> "Packed":
    return cls(names, *children)


def merge(states: Iterable[Mapping[str, Mean]]) -> dict[str, Mean]:
  """Merges dicts of means; a name may be missing from some of them."""
  merged: dict[str, Mean] = {}
  for state in states:
    for name, mean in state.items():
      merged[name] = merged[name].merge(mean) if name in merged else mean
  return merged


def compute(state: Mapping[str, Mean]) -> dict[str, float]:
  """Values of all means that counted anything, by name."""
  return {
    name: mean.compute() for name, mean in state.items() if float(mean.count)
  }


def to_json(state: Mapping[str, Mean]) -> dict[str, list[float]]:
  """JSON of means, exact to the bit: {name: [total, count]}."""
  return {
    name: [float(mean.total), float(mean.count)] for name, mean in state.items()
  }


def from_json(saved: Mapping[str, Sequence[float]]) -> dict[str, Mean]:
  """Inverse of `to_json`, on the host."""
  return {
    name: Mean(np.float32(total), np.float32(count))
    for name, (total, count) in saved.items()
  }
