"""Metrics over texts: seqio's `metric_fn(targets, predictions)`, TF-free.

Every value is a percentage or a score from 0 to 100. Targets are what the
task's postprocessor returns: a string, a list of accepted references, or a
string with its task, {"task": …, "answer": …}.

Attributes of a metric function say what evaluation makes of it beyond its
value; a function of your own needs none of them.

  statistics   `(targets, predictions) -> Statistics`, whose `compute()` is the
               function's value. Its confidence interval is then as good as free
  resamples    for a function without `statistics`: how often it may be called
               for its interval, `evaluation.scores.CALLS` by default; 0: never
  answer       `(prediction) -> str`, what a majority vote over several samples
               counts, "" for none; adds `majority_<metric>` and pass@k
  unit         of its values, such as "%"; none by default
  signature    `(targets) -> str`: what decides its values beyond the texts,
               kept in metric_info.json
  keeps        `(reference) -> bool`: whether its tokenizer leaves something of
               a reference to compare; evaluation warns where it does not
  direction    "max" (default) if more is better, "min" if less is, "" for
               neither

`bleu_TOKENIZER` and `rouge_TOKENIZER` are made when asked for, with any
tokenizer of sacreBLEU: `bleu_zh`, `bleu_ja_mecab`, `rouge_char`, …
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
from typing import Any

import numpy as np

from gkd.errors import UserError
from gkd.text import choices
from gkd.text import metric_tokenizers
from gkd.text import numbers
from gkd.text.statistics import Statistics
from gkd.text.statistics import means

Target = str | Sequence[str] | Mapping[str, str]

# {value: measure of rouge_score}
_ROUGE = {name: name for name in ("rouge1", "rouge2", "rougeL")}
_ROUGE_LSUM = {"rougeLsum": "rougeLsum"}


def _metric(
  **attributes: Any,
) -> Callable[[Callable[..., Statistics]], Callable[..., dict[str, float]]]:
  """Makes a metric function of one that returns `Statistics`."""

  def metric_of(statistics):
    @functools.wraps(statistics)
    def metric(targets: Sequence[Target], predictions: Sequence[str]):
      return statistics(targets, predictions).compute()

    vars(metric).update(statistics=statistics, unit="")
    vars(metric).update(attributes)
    return metric

  return metric_of


def _by_tokenizer(family: str, tokenizer: str):
  """`_metric` with the signature and the domain of a tokenizer."""

  def signature(targets: Sequence[Target]) -> str:
    counts = {len(_listed(target)) for target in targets}
    count = counts.pop() if len(counts) == 1 else -1
    return metric_tokenizers.signature(tokenizer, family, count)

  keeps = functools.partial(metric_tokenizers.keeps, tokenizer)
  return _metric(signature=signature, keeps=keeps)


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


def _choice(text: str) -> str:
  return choices.extract_choice(text) or ""


@_metric(answer=_choice, unit="%")
def choice_accuracy(targets: Sequence[Target], predictions: Sequence[str]):
  """Share of answers to multiple-choice questions with a reference's letter."""
  letters = [[_choice(t) for t in _listed(target)] for target in targets]
  return _share("accuracy", letters, [_choice(text) for text in predictions])


@_metric(unit="%")
def exact_match_over_tasks(
  targets: Sequence[Mapping[str, str]], predictions: Sequence[str]
):
  """Mean over the tasks of a benchmark of the `exact_match` within each.

  Targets are those of `postprocess.answer_of_task`, as MMLU and BBH have them.
  """
  is_right, _ = exact_match.statistics(targets, predictions).values.T
  names, places = np.unique([t["task"] for t in targets], return_inverse=True)
  is_task = np.eye(len(names))[places]  # [N, tasks]

  def of_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    rows, right = np.split(sums, 2, axis=-1)
    shares = right / np.maximum(rows, 1)  # a resample may leave a task out
    return {"exact_match": 100 * shares.sum(-1) / (rows > 0).sum(-1)}

  right = is_task * is_right[:, None]
  return Statistics(np.concatenate([is_task, right], axis=-1), of_sums)


@_by_tokenizer("bleu", "13a")
def bleu(targets: Sequence[Target], predictions: Sequence[str]):
  """SacreBLEU with its default settings (tokenizer 13a), Post 2018."""
  return _bleu("bleu", targets, predictions, "13a")


@_by_tokenizer("bleu", "intl")
def bleu_international(targets: Sequence[Target], predictions: Sequence[str]):
  """SacreBLEU as the T5 tasks call it: the "intl" tokenizer."""
  return _bleu("bleu_international", targets, predictions, "intl")


@_by_tokenizer("rouge", metric_tokenizers.ROUGE_SCORE)
def rouge(targets: Sequence[Target], predictions: Sequence[str]):
  """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L, without stemming as in T5.

  With several references the best one counts, for each measure by itself. T5
  reports the middle of a bootstrap, which lies within noise of this mean.
  """
  return _rouge(_ROUGE, targets, predictions)


@_by_tokenizer("rouge", metric_tokenizers.ROUGE_SCORE)
def rouge_lsum(targets: Sequence[Target], predictions: Sequence[str]):
  """As `rouge`, ROUGE-Lsum: L over the sentences, cut at newlines and " . ".

  T5's `rouge` reports this one instead of ROUGE-L.
  """
  return _rouge(_ROUGE_LSUM, targets, predictions)


@functools.cache
def __getattr__(name: str) -> Callable[..., dict[str, float]]:
  """`bleu_TOKENIZER` and `rouge_TOKENIZER`; "-" of its name is "_"."""
  family, _, tokenizer = name.partition("_")
  tokenizer = tokenizer.replace("_", "-")
  if (
    family not in ("bleu", "rouge")
    or tokenizer not in metric_tokenizers.names()
  ):
    expected = ", ".join(metric_tokenizers.names()) if family else ""
    raise AttributeError(
      f"module {__name__!r} has no metric {name!r}; beside its own names there"
      f" are bleu_TOKENIZER and rouge_TOKENIZER of {expected}"
    )

  def metric(targets: Sequence[Target], predictions: Sequence[str]):
    if family == "bleu":
      return _bleu(name, targets, predictions, tokenizer)
    measures = (_ROUGE | _ROUGE_LSUM).values()
    values = {f"{m}_{name.removeprefix('rouge_')}": m for m in measures}
    return _rouge(values, targets, predictions, tokenizer)

  metric.__name__ = metric.__qualname__ = name
  return _by_tokenizer(family, tokenizer)(metric)


def _bleu(name: str, targets, predictions, tokenize: str) -> Statistics:
  """Sums of lengths, of matching n-grams and of all n-grams, n = 1 to 4."""
  from sacrebleu.metrics import BLEU

  _check(targets, predictions)
  metric_tokenizers.load(tokenize)  # or says what it lacks
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


def _rouge(
  measures: Mapping[str, str],
  targets,
  predictions,
  tokenizer=metric_tokenizers.ROUGE_SCORE,
) -> Statistics:
  from rouge_score import rouge_scorer

  _check(targets, predictions)
  scorer = rouge_scorer.RougeScorer(
    [*measures.values()],
    use_stemmer=False,
    tokenizer=metric_tokenizers.load(tokenizer),
  )
  if "rougeLsum" in measures.values():  # T5's cut between sentences
    targets = [[_lines(t) for t in _listed(target)] for target in targets]
    predictions = [_lines(prediction) for prediction in predictions]
  scores = [
    scorer.score_multi(_listed(target), prediction)
    for target, prediction in zip(targets, predictions, strict=True)
  ]
  return means(
    {name: [s[m].fmeasure for s in scores] for name, m in measures.items()},
    scale=100.0,
  )


def _lines(text: str) -> str:
  return text.replace(" . ", " .\n")


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
  if isinstance(target, Mapping):  # of `postprocess.answer_of_task`
    return [target["answer"]]
  return [target] if isinstance(target, str) else list(target)


def _collapse(text: str) -> str:
  return " ".join(text.split())
