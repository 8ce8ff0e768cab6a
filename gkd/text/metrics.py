"""Metrics over texts: seqio's `metric_fn(targets, predictions)`, TF-free.

Every value is a percentage or a score from 0 to 100. Targets are what the
task's postprocessor returns: a string, or a list of accepted references.

Attributes of a metric function say what evaluation makes of it beyond its
value; a function of your own needs none of them.

  statistics   `(targets, predictions) -> Statistics`, whose `compute()` is the
               function's value. Its confidence interval is then as good as free
  resamples    for a function without `statistics`: how often it may be called
               for its interval, `evaluation.scores.CALLS` by default; 0: never
  answer       `(prediction) -> str`, what a majority vote over several samples
               counts, "" for none; adds `majority_<metric>`
  unit         of its values, such as "%"; none by default
  direction    "max" (default) if more is better, "min" if less is, "" for
               neither
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools

import numpy as np

from gkd.errors import UserError
from gkd.text import numbers
from gkd.text.statistics import Statistics
from gkd.text.statistics import means

Target = str | Sequence[str]


def _metric(
  answer: Callable[[str], str] | None = None, unit: str = ""
) -> Callable[[Callable[..., Statistics]], Callable[..., dict[str, float]]]:
  """Makes a metric function of one that returns `Statistics`."""

  def metric_of(statistics):
    @functools.wraps(statistics)
    def metric(targets: Sequence[Target], predictions: Sequence[str]):
      return statistics(targets, predictions).compute()

    metric.statistics, metric.unit = statistics, unit
    if answer is not None:
      metric.answer = answer
    return metric

  return metric_of


@_metric(answer=str, unit="%")
def accuracy(targets: Sequence[Target], predictions: Sequence[str]):
  """Share of predictions equal to a reference; an empty one is wrong.

  Example:
    >>> accuracy(["12", "7"], ["12", ""])
    {'accuracy': 50.0}
  """
  return _share("accuracy", targets, predictions)


@_metric(unit="%")
def exact_match(targets: Sequence[Target], predictions: Sequence[str]):
  """Share of predictions equal to a reference, blanks collapsed."""
  targets = [[_collapse(t) for t in _listed(target)] for target in targets]
  predictions = [_collapse(prediction) for prediction in predictions]
  return _share("exact_match", targets, predictions)


def _answer(text: str) -> str:
  return numbers.extract_answer(text) or ""


def _recomputed_answer(text: str) -> str:
  return _answer(numbers.recompute(text))


@_metric(answer=_answer, unit="%")
def answer_accuracy(targets: Sequence[Target], predictions: Sequence[str]):
  """Share of solutions whose final number is that of a reference."""
  answers = [_answer(prediction) for prediction in predictions]
  return _share("accuracy", _answers(targets), answers)


@_metric(answer=_recomputed_answer, unit="%")
def answer_accuracy_with_calculator(
  targets: Sequence[Target], predictions: Sequence[str]
):
  """As `answer_accuracy`, wrong results in predictions recomputed before."""
  answers = [_recomputed_answer(prediction) for prediction in predictions]
  return _share("accuracy_with_calculator", _answers(targets), answers)


@_metric()
def bleu(targets: Sequence[Target], predictions: Sequence[str]):
  """SacreBLEU with its default settings (tokenizer 13a), Post 2018."""
  return _bleu("bleu", targets, predictions, "13a")


@_metric()
def bleu_international(targets: Sequence[Target], predictions: Sequence[str]):
  """SacreBLEU as the T5 tasks call it: the "intl" tokenizer."""
  return _bleu("bleu_international", targets, predictions, "intl")


@_metric()
def rouge(targets: Sequence[Target], predictions: Sequence[str]):
  """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L, without stemming as in T5.

  With several references the best one counts, for each measure by itself. T5
  reports the middle of a bootstrap, which lies within noise of this mean.
  """
  from rouge_score import rouge_scorer

  _check(targets, predictions)
  names = ("rouge1", "rouge2", "rougeL")
  scorer = rouge_scorer.RougeScorer(names, use_stemmer=False)
  scores = [
    scorer.score_multi(_listed(target), prediction)
    for target, prediction in zip(targets, predictions, strict=True)
  ]
  return means(
    {name: [s[name].fmeasure for s in scores] for name in names}, scale=100.0
  )


def _bleu(name: str, targets, predictions, tokenize: str) -> Statistics:
  """Sums of lengths, of matching n-grams and of all n-grams, n = 1 to 4."""
  from sacrebleu.metrics import BLEU

  _check(targets, predictions)
  # Effective order changes a sentence's score, which is not used here, and not
  # its counts; without it sacrebleu warns of scores of sentences.
  scorer = BLEU(tokenize=tokenize, effective_order=True)
  rows = []
  for target, prediction in zip(targets, predictions, strict=True):
    score = scorer.sentence_score(prediction, _listed(target))
    rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])

  def of_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    scores = [
      BLEU.compute_bleu(row[2:6], row[6:], *row[:2], smooth_method="exp").score
      for row in sums.reshape(-1, sums.shape[-1]).astype(int).tolist()
    ]
    return {name: np.reshape(scores, sums.shape[:-1])}

  return Statistics(np.asarray(rows, np.float64), of_sums)


def _answers(targets: Sequence[Target]) -> list[list[str]]:
  return [
    [_answer(reference) for reference in _listed(target)] for target in targets
  ]


def _share(name: str, targets, predictions) -> Statistics:
  _check(targets, predictions)
  is_right = [
    prediction != "" and prediction in _listed(target)
    for target, prediction in zip(targets, predictions, strict=True)
  ]
  return means({name: is_right}, scale=100.0)


def _check(targets, predictions) -> None:
  if len(targets) != len(predictions) or not len(targets):
    raise UserError(
      f"metric over {len(targets)} targets and {len(predictions)} predictions: "
      "expected one prediction for each of one or more targets"
    )


def _listed(target: Target) -> list[str]:
  return [target] if isinstance(target, str) else list(target)


def _collapse(text: str) -> str:
  return " ".join(text.split())
