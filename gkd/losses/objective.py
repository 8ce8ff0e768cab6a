"""What one update minimises: distillation or cross-entropy.

An objective turns hidden states and heads (hidden -> logits, parameters bound)
into a scalar loss and mergeable metrics. It never shifts, reduces or samples:
hidden states are aligned with targets, and `masks.coefficients` come in.

  objective = Distillation(ReverseKL(), chunk_size=128)
  loss, metrics = objective(Scored(hidden, head), {"teacher": …}, batch, …)
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import numbers
from typing import Any
from typing import NamedTuple
from typing import Protocol

import jax
import jax.numpy as jnp

from gkd import blocks
from gkd import masks
from gkd.errors import check_number
from gkd.losses import divergence as divergences
from gkd.losses import token_metrics
from gkd.losses.chunked import Sums
from gkd.losses.chunked import loss_over_chunks
from gkd.losses.likelihood import cross_entropy
from gkd.metrics import Mean
from gkd.structured_settings import setting
from gkd.types import Array
from gkd.types import Batch
from gkd.types import Source
from gkd.types import UserError

Head = Callable[[Array], Array]  # hidden [..., D] -> logits [..., V]


class Scored(NamedTuple):
  """A model on a batch.

  Attributes:
    hidden: [B, T, D] states, aligned with the batch's targets.
    head: hidden [..., D] -> raw logits [..., V]; the table may be padded wider.
    forbidden_ids: of the student, what its sampler never draws: padding, start
      and control.
  """

  hidden: Array
  head: Head
  forbidden_ids: tuple[int, ...] = ()

  def drawn_from(self, logits: Array) -> Array:
    """Masked logits of any model, over the ids that are drawn alone."""
    return masks.mask_padded_ids(
      logits, logits.shape[-1], forbidden_ids=self.forbidden_ids
    )


class Objective(Protocol):
  """What a step minimises; see `Distillation.__call__` for the arguments.

  One of your own is a frozen dataclass that inherits from this.
  """

  @property
  def needs_samples(self) -> bool:
    """Whether it only learns from text that the student drew."""
    return False

  @property
  def needs_advantages(self) -> bool:
    """Whether it reads `Batch.advantages`, and so needs a reward."""
    return False

  @property
  def weighs_samples(self) -> bool:
    """Whether it knows what text was drawn from, by `Batch.log_probs`."""
    return False

  @property
  def roles(self) -> tuple[str, ...]:
    """The frozen models that the student is compared with, by role."""
    return ()

  def coefficients(self, batch: Batch, reduction: masks.Reduction) -> Any:
    """What weighs the values of a batch: [B, T], or a pytree of such arrays.

    Made once of the whole global batch, before it is split into parts.
    """
    segments = batch.segments.targets if batch.segments else None
    return masks.coefficients(batch.weights, reduction, segments)

  def describe(self) -> str: ...

  def __call__(
    self,
    student: Scored,
    frozen: Mapping[str, Scored],
    batch: Batch,
    coefficients: Any,
    vocabulary_size: int,
  ) -> Sums: ...


class Positions(NamedTuple):
  """What a loss needs beside the student's logits; T may be of a chunk."""

  teacher: Array | None  # [B, T, E] hidden states
  targets: Array  # [B, T]
  weights: Array  # [B, T]
  coefficients: Array  # [B, T], of the loss
  thirds: Array  # [B, T], see `masks.thirds`


@dataclasses.dataclass(frozen=True)
class Distillation(Objective):
  """D(p_T || p_S) at every position of the targets (GKD, Eq. 2).

  Under the reduction "sum" the loss is the sum over the tokens of a batch, and
  loss/<source> the token mean; else both are means, in nats per token.

  Attributes:
    divergence: see losses/divergence.py.
    teacher_temperature: divides the teacher's logits inside the loss (the
      paper's XSum and GSM8K runs take 0.1).
    student_temperature: divides the student's logits inside the loss.
    chunk_size: number of target positions whose logits exist at once; None
      holds all of them. The loss is the same.
    role: the frozen model that is p_T.
    student_divergence: another one for rows that the student wrote, as in
      DistiLLM-2 (arXiv 2503.07067); None for the same.
    student_weight: b of DistiLLM-2: values of rows that the student wrote count
      b times, others 2 - b times.
  """

  divergence: divergences.Divergence = setting("DIVERGENCE")
  teacher_temperature: float = setting("TEACHER_TEMPERATURE", default=1.0)
  student_temperature: float = setting("STUDENT_TEMPERATURE", default=1.0)
  chunk_size: int | None = setting("CHUNK_SIZE", default=None)
  role: str = "teacher"
  student_divergence: divergences.Divergence | None = setting(
    "STUDENT_DIVERGENCE", default=None
  )
  student_weight: float = setting("STUDENT_WEIGHT", default=1.0)

  def __post_init__(self):
    for name in ("divergence", "student_divergence"):
      given = getattr(self, name)
      is_none = given is None and name == "student_divergence"
      if not is_none and (not callable(given) or isinstance(given, type)):
        raise UserError(
          f"Distillation.{name} is {given!r}; expected an object such as"
          " ReverseKL() or GeneralizedJSD(beta=0.5): choose a divergence"
        )
    check_number(
      "Distillation.student_weight",
      self.student_weight,
      lambda weight: 0 <= weight <= 2,
      "a number from 0 to 2: 1 for the same as other rows",
    )
    for name in ("teacher_temperature", "student_temperature"):
      check_number(
        f"Distillation.{name}",
        getattr(self, name),
        lambda temperature: 0 < temperature < float("inf"),
        "a number above 0, such as 1.0",
      )
    if self.chunk_size is not None:
      check_number(
        "Distillation.chunk_size",
        self.chunk_size,
        lambda size: size >= 1,
        "a whole number of positions from 1 up, such as 128, or None for all at"
        " once",
        numbers.Integral,
      )

  @property
  def roles(self) -> tuple[str, ...]:
    return (self.role,)

  def describe(self) -> str:
    own = ""
    if self.student_divergence is not None:
      own = f"; on text of the student {self.student_divergence.describe()}"
    if self.student_weight != 1:
      b = self.student_weight
      own += f"; text of the student counts {b:g} times, other {2 - b:g} times"
    return (
      f"distillation: {self.divergence.describe()}, "
      f"p = {self.role} at temperature {self.teacher_temperature:g}, "
      f"q = student at temperature {self.student_temperature:g}{own}"
    )

  def __call__(
    self,
    student: Scored,
    frozen: Mapping[str, Scored],
    batch: Batch,
    coefficients: Array,
    vocabulary_size: int,
  ) -> Sums:
    """Loss sum(coefficients * divergence) and metrics.

    Args:
      student: what learns.
      frozen: models of `roles`, of any width; no gradient flows to them.
      batch: targets, weights and source are read.
      coefficients: those of `coefficients` for the rows of this batch.
      vocabulary_size: number of real ids, the same for all models.

    Returns:
      float32 scalar and {name: Mean}.
    """
    teacher = frozen[self.role]

    def of_positions(logits: Array, positions: Positions) -> Sums:
      student_logits, teacher_logits = token_metrics.mask_padded_vocab(
        logits,
        jax.lax.stop_gradient(teacher.head(positions.teacher)),
        vocabulary_size,
      )
      log_p = jax.nn.log_softmax(teacher_logits / self.teacher_temperature)
      log_q = jax.nn.log_softmax(student_logits / self.student_temperature)
      values = self._values(log_p, log_q, batch.source == Source.STUDENT)
      parts = token_metrics.parts_of(positions.thirds, batch.source)
      metrics = token_metrics.compare(
        student_logits, teacher_logits, positions.weights, parts
      )
      return token_metrics.reduce(
        values, positions.coefficients, parts, metrics
      )

    positions = Positions(
      teacher.hidden,
      batch.targets,
      batch.weights,
      coefficients,
      masks.thirds(batch.weights),
    )
    return loss_over_chunks(
      of_positions, student.head, student.hidden, positions, self.chunk_size
    )

  def _values(self, log_p: Array, log_q: Array, own: Array) -> Array:
    """[B, T] from log-probabilities [B, T, V]; own [B]: the student's rows."""
    own, values = own[:, None], 0.0
    if self.student_divergence is None:
      values = self.divergence(log_p, log_q)
    else:
      # For equal models where one does not count: 0 * inf is NaN.
      for divergence, used in (
        (self.divergence, ~own),
        (self.student_divergence, own),
      ):
        measured = jnp.where(used[..., None], log_q, log_p)
        values += jnp.where(used, divergence(log_p, measured), 0.0)
    b = self.student_weight
    return values if b == 1 else values * jnp.where(own, b, 2 - b)


@dataclasses.dataclass(frozen=True)
class CrossEntropy(Objective):
  """-log p_S(y_t | y_<t, x) of the targets, as T5X: SFT and SeqKD.

  Runs over all rows of the logits table. A teacher is not needed; when one is
  passed, the student is also compared with it.

  Attributes:
    z_loss: coefficient of (log Z)^2; T5X trains with 1e-4.
    label_smoothing: mass spread over the other ids, in [0, 1).
  """

  z_loss: float = setting("Z_LOSS", default=0.0)
  label_smoothing: float = setting("LABEL_SMOOTHING", default=0.0)

  def __post_init__(self):
    check_number(
      "CrossEntropy.z_loss",
      self.z_loss,
      lambda z_loss: 0 <= z_loss < float("inf"),
      "a number from 0 up: 0 for none, or T5X's 1e-4",
    )
    check_number(
      "CrossEntropy.label_smoothing",
      self.label_smoothing,
      lambda smoothing: 0 <= smoothing < 1,
      "a number from 0 to below 1: 0 for none, or for example 0.1",
    )

  def describe(self) -> str:
    extras = ""
    if self.z_loss:
      extras += f", plus z-loss {self.z_loss:g} (log Z)^2"
    if self.label_smoothing:
      extras += f", label smoothing {self.label_smoothing:g}"
    return f"cross-entropy: -log q(target), q = student{extras}"

  def __call__(
    self,
    student: Scored,
    frozen: Mapping[str, Scored],
    batch: Batch,
    coefficients: Array,
    vocabulary_size: int,
  ) -> Sums:
    """Loss sum(coefficients * cross-entropy) and metrics.

    Arguments as of `Distillation`; a teacher is optional, for metrics only.
    """
    teacher = frozen.get("teacher")
    logits = student.head(student.hidden)
    values = cross_entropy(
      logits,
      batch.targets,
      z_loss=self.z_loss,
      label_smoothing=self.label_smoothing,
    )
    if teacher is None:
      real_ids = masks.mask_padded_ids(logits, vocabulary_size), None
    else:
      real_ids = token_metrics.mask_padded_vocab(
        logits,
        jax.lax.stop_gradient(teacher.head(teacher.hidden)),
        vocabulary_size,
      )
    parts = token_metrics.parts_of(masks.thirds(batch.weights), batch.source)
    metrics = token_metrics.compare(*real_ids, batch.weights, parts)
    metrics["token_accuracy"] = Mean.of(
      blocks.largest(jax.lax.stop_gradient(logits)) == batch.targets,
      batch.weights > 0,
    )
    return token_metrics.reduce(values, coefficients, parts, metrics)
