"""Metrics over texts: seqio's `metric_fn(targets, predictions)`, TF-free.

Every value is a percentage or a score from 0 to 100. Targets are what the
task's postprocessor returns: a string, or a list of accepted references.
A token cache records these functions by dotted name.
"""

from collections.abc import Sequence

from gkd.text import numbers
from gkd.types import UserError

Target = str | Sequence[str]


def accuracy(targets: Sequence[Target], predictions: Sequence[str]):
  """Share of predictions equal to a reference; an empty one is wrong.

  Example:
    >>> accuracy(["12", "7"], ["12", ""])
    {'accuracy': 50.0}
  """
  return {"accuracy": _percent(_equal(targets, predictions))}


def exact_match(targets: Sequence[Target], predictions: Sequence[str]):
  """Share of predictions equal to a reference, blanks collapsed."""
  targets = [[_collapse(t) for t in _listed(target)] for target in targets]
  predictions = [_collapse(prediction) for prediction in predictions]
  return {"exact_match": _percent(_equal(targets, predictions))}


def answer_accuracy(targets: Sequence[Target], predictions: Sequence[str]):
  """Share of solutions whose final number is that of a reference."""
  answers = [numbers.extract_answer(p) or "" for p in predictions]
  return {"accuracy": _percent(_equal(_answers(targets), answers))}


def answer_accuracy_with_calculator(
  targets: Sequence[Target], predictions: Sequence[str]
):
  """As `answer_accuracy`, wrong results in predictions recomputed before."""
  answers = [
    numbers.extract_answer(numbers.recompute(p)) or "" for p in predictions
  ]
  value = _percent(_equal(_answers(targets), answers))
  return {"accuracy_with_calculator": value}


def bleu(targets: Sequence[Target], predictions: Sequence[str]):
  """SacreBLEU with its default settings (tokenizer 13a), Post 2018."""
  return {"bleu": _bleu(targets, predictions, "13a")}


def bleu_international(targets: Sequence[Target], predictions: Sequence[str]):
  """SacreBLEU as the T5 tasks call it: the "intl" tokenizer."""
  return {"bleu_international": _bleu(targets, predictions, "intl")}


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
  return {name: _percent([s[name].fmeasure for s in scores]) for name in names}


def _bleu(targets, predictions, tokenize: str) -> float:
  import sacrebleu

  _check(targets, predictions)
  listed = [_listed(target) for target in targets]
  width = max(len(references) for references in listed)
  # One stream per position; None where a row has fewer references.
  streams = [
    [row[i] if i < len(row) else None for row in listed] for i in range(width)
  ]
  score = sacrebleu.corpus_bleu(
    list(predictions),
    streams,
    smooth_method="exp",
    force=True,  # only silences the warning about tokenized input
    tokenize=tokenize,
  )
  return float(score.score)


def _answers(targets: Sequence[Target]) -> list[list[str]]:
  return [
    [numbers.extract_answer(reference) or "" for reference in _listed(target)]
    for target in targets
  ]


def _equal(targets, predictions) -> list[bool]:
  _check(targets, predictions)
  return [
    prediction != "" and prediction in _listed(target)
    for target, prediction in zip(targets, predictions, strict=True)
  ]


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


def _percent(values: Sequence[float]) -> float:
  return 100.0 * sum(values) / len(values)
