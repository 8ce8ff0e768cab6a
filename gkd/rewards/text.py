"""Rewards that are computed from texts: answers, ROUGE, BLEU, length.

The numbers are those of the metrics of the same names, from 0 to 1 instead of
to 100, of each completion by itself.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import Literal

import numpy as np

from gkd.errors import check_number
from gkd.text import metric_tokenizers
from gkd.text import metrics
from gkd.types import UserError


@dataclasses.dataclass(frozen=True)
class ExactAnswer:
  """1 where the answer is that of a reference, else 0.

  Attributes:
    metric: which answers are equal: "accuracy" where the task's postprocessor
      leaves the answer alone, "answer_accuracy" for the last number of a
      solution in words (GSM8K), or another of `gkd.text.metrics`.
  """

  metric: Literal[
    "accuracy",
    "exact_match",
    "answer_accuracy",
    "answer_accuracy_with_calculator",
  ] = "accuracy"

  compares_answers = True

  def __call__(
    self, prompts: Sequence[str], completions: Sequence, references: Sequence
  ) -> np.ndarray:
    del prompts
    function = getattr(metrics, self.metric)
    (values,) = _of_each(function, completions, references).values()
    return values


@dataclasses.dataclass(frozen=True)
class Rouge:
  """F1 of ROUGE; of several references the best one counts."""

  measure: Literal["rouge1", "rouge2", "rougeL", "rougeLsum"] = "rouge2"

  compares_answers = True

  def __call__(
    self, prompts: Sequence[str], completions: Sequence, references: Sequence
  ) -> np.ndarray:
    del prompts
    is_lsum = self.measure == "rougeLsum"
    function = metrics.rouge_lsum if is_lsum else metrics.rouge
    return _of_each(function, completions, references)[self.measure]


@dataclasses.dataclass(frozen=True)
class Bleu:
  """Sentence BLEU of sacreBLEU: exponential smoothing, effective order.

  Attributes:
    tokenizer: of sacreBLEU, such as "13a", "intl" or "zh".
  """

  tokenizer: str = "13a"

  compares_answers = True

  def __call__(
    self, prompts: Sequence[str], completions: Sequence, references: Sequence
  ) -> np.ndarray:
    from sacrebleu.metrics import BLEU

    del prompts
    _require(references)
    metric_tokenizers.load(self.tokenizer)  # or says what it lacks
    scorer = BLEU(tokenize=self.tokenizer, effective_order=True)
    scores = [
      scorer.sentence_score(text, [ref] if isinstance(ref, str) else [*ref])
      for text, ref in zip(completions, references, strict=True)
    ]
    return np.array([score.score for score in scores]) / 100


@dataclasses.dataclass(frozen=True)
class Length:
  """0 up to `most` words, below 0 for more: 1 - words/most."""

  most: int

  def __post_init__(self):
    check_number("Length.most", self.most, lambda x: x >= 1, "1 or more")

  def __call__(
    self, prompts: Sequence[str], completions: Sequence, references: Sequence
  ) -> np.ndarray:
    del prompts, references
    words = np.array([len(text.split()) for text in completions])
    return np.minimum(1 - words / self.most, 0)


def _of_each(
  metric: Callable[..., Any], completions: Sequence, references: Sequence
) -> dict[str, np.ndarray]:
  """The values of a metric, from 0 to 1, of each completion by itself."""
  _require(references)
  statistics = metric.statistics(references, completions)
  values = statistics.of_sums(statistics.values)
  return {name: value / 100 for name, value in values.items()}


def _require(references: Sequence) -> None:
  if None in references:
    raise UserError(
      "REWARD compares with references, but a row of the data has none; give"
      " data with targets, or a reward that needs none"
    )
