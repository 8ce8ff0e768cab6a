"""Several objectives at once: the weighted sum of their losses.

objective = WeightedSum((
  Term("distillation", 0.5, Distillation(ReverseKL())),
  Term("anchor", 0.5, Distillation(ReverseKL(), role="anchor")),
))
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from gkd import masks
from gkd.errors import check_number
from gkd.losses.objective import Objective
from gkd.losses.objective import Scored
from gkd.losses.objective import Sums
from gkd.types import Batch
from gkd.types import UserError


@dataclasses.dataclass(frozen=True)
class Term:
  """One objective of a sum.

  Attributes:
    name: of its metrics.
    weight: of its loss; a term of weight 0 is not computed.
    objective: has its own coefficients, so that no term dilutes another.
  """

  name: str
  weight: float
  objective: Objective

  def __post_init__(self):
    check_number(
      f"the weight of {self.name}",
      self.weight,
      lambda weight: 0 <= weight < math.inf,
      "a number from 0 up",
    )


@dataclasses.dataclass(frozen=True)
class WeightedSum(Objective):
  """sum of weight * loss over terms.

  Metrics of the first term have their usual names, those of another one, and of
  one that compares with no teacher but another model, begin with the term's.
  """

  terms: tuple[Term, ...]

  def __post_init__(self):
    object.__setattr__(self, "terms", tuple(self.terms))  # a list from a config
    names = [term.name for term in self.terms]
    if len(set(names)) < len(names) or not self.active:
      raise UserError(
        f"the terms of the objective are {names} with weights"
        f" {[term.weight for term in self.terms]}; expected different names and"
        " a weight above 0"
      )

  @property
  def active(self) -> list[Term]:
    """The terms that are computed."""
    return [term for term in self.terms if term.weight]

  @property
  def needs_samples(self) -> bool:
    return any(term.objective.needs_samples for term in self.active)

  @property
  def needs_advantages(self) -> bool:
    return any(term.objective.needs_advantages for term in self.active)

  @property
  def weighs_samples(self) -> bool:
    return all(
      term.objective.weighs_samples
      for term in self.active
      if term.objective.needs_samples
    )

  @property
  def roles(self) -> tuple[str, ...]:
    roles = [role for term in self.active for role in term.objective.roles]
    return tuple(dict.fromkeys(roles))

  def coefficients(
    self, batch: Batch, reduction: masks.Reduction
  ) -> dict[str, Any]:
    return {
      term.name: term.objective.coefficients(batch, reduction)
      for term in self.active
    }

  def describe(self) -> str:
    return " + ".join(
      f"{term.weight:g} · ({term.objective.describe()})" for term in self.active
    )

  def __call__(
    self,
    student: Scored,
    frozen: Mapping[str, Scored],
    batch: Batch,
    coefficients: Mapping[str, Any],
    vocabulary_size: int,
  ) -> Sums:
    """As `Distillation`, with the coefficients of each term by its name."""
    total, metrics = 0.0, {}
    for number, term in enumerate(self.active):
      loss, found = term.objective(
        student, frozen, batch, coefficients[term.name], vocabulary_size
      )
      total += term.weight * loss
      roles = term.objective.roles
      is_usual = not number and (not roles or "teacher" in roles)
      prefix = "" if is_usual else f"{term.name}/"
      metrics |= {prefix + name: mean for name, mean in found.items()}
    return total, metrics
