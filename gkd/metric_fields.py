"""What a value of an evaluation is, by fields: for readers without JAX too."""

from collections.abc import Mapping
import dataclasses
from typing import Any
from typing import Literal

# What an evaluation adds to the name of a value: the ends of its 95 % interval
# and its standard error.
SUFFIXES = ("_ci_low", "_ci_high", "_se")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricInfo:
  """What one value of an evaluation is; JSON as it stands.

  Attributes:
    metric: its name within the task, such as "accuracy".
    task: the task.
    split: the split of the task.
    decoding: {"strategy": name, …} and the numbers of the strategy.
    label: tells decodings of one split apart; "" for the only one or for
      greedy.
    unit: "%", "tokens", "nats per sequence", …; "" for a plain number.
    direction: whether more or less is better; "" for neither.
    role: the model that the value belongs to.
    compared_with: the role of the other model, of a divergence; "" otherwise.
    signature: what decides the value beyond the texts, such as sacreBLEU's;
      in JSON where there is one.
  """

  metric: str
  task: str
  split: str
  decoding: Mapping[str, Any]
  label: str = ""
  unit: str = ""
  direction: Literal["max", "min", ""] = ""
  role: str = "student"
  compared_with: str = ""
  signature: str = ""
