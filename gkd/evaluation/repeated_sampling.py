"""Several answers to each prompt together: majority vote, pass@k, Self-BLEU.

pass_at_k([accuracy.statistics(targets, texts) for texts in draws]).compute()
# {"pass_at_2_accuracy": 61.5, "pass_at_4_accuracy": 70.0}
"""

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
import dataclasses

import numpy as np

from gkd.rewards.text import Bleu
from gkd.text.statistics import Statistics
from gkd.text.statistics import means

_MOST_COMPARED = 8


def majority(
  statistics: Callable[[Sequence, Sequence], Statistics],
  targets: Sequence,
  draws: Sequence[Sequence],
  vote: Callable[[str], str],
) -> Statistics:
  """`majority_<metric>`: of each prompt the text with the most frequent answer.

  Self-consistency (Wang et al., ICLR 2023), maj@n: answers that are empty have
  no vote, and of equally frequent ones that which was drawn first wins.

  Args:
    statistics: of the metric.
    targets: [N] references.
    draws: [n][N] texts.
    vote: the answer in a text, "" for none.
  """
  chosen = []
  for texts in zip(*draws, strict=True):
    answers = [vote(text) for text in texts]
    counted = Counter(filter(None, answers)).most_common(1)
    place = answers.index(counted[0][0]) if counted else 0
    chosen.append(texts[place])
  of_chosen = statistics(targets, chosen)

  def of_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    return {f"majority_{n}": v for n, v in of_chosen.of_sums(sums).items()}

  return dataclasses.replace(of_chosen, of_sums=of_sums)


def pass_at_k(draws: Sequence[Statistics]) -> Statistics:
  """`pass_at_<k>_<metric>`: the chance that one of k answers is right, in %.

  1 - C(n - c, k) / C(n, k) of a prompt with c right answers among n, the mean
  over prompts: Chen et al. 2021 (arXiv:2107.03374), Eq. 1, without bias. k is
  2, 4, 8, … and n; at k = 1 it is the metric itself.

  Args:
    draws: [n] of a metric; an answer is right where its own value is above 0.
  """
  number = len(draws)
  each = [draw.of_sums(draw.values) for draw in draws]  # {metric: [N]}
  ks = {2**power for power in range(1, number.bit_length())} | {number}
  values = {}
  for k in sorted(k for k in ks if k <= number):
    # C(n - c, k) / C(n, k) for c = 0 … n, one factor each.
    rest = np.arange(number, 0, -1)
    factors = np.maximum(rest - k, 0) / rest
    all_wrong = np.cumprod([1, *factors])
    for name in each[0]:
      right = np.sum([one[name] > 0 for one in each], axis=0)
      values[f"pass_at_{k}_{name}"] = 1 - all_wrong[right]
  return means(values, scale=100.0)


def self_bleu(draws: Sequence[Sequence[str]]) -> Statistics:
  """`self_bleu`: how alike the answers to a prompt are, from 0 to 100.

  Sentence BLEU of each against all others (Zhu et al. 2018, arXiv:1802.01886),
  as sacreBLEU computes it, the mean over answers and prompts. 100: all are the
  same, empty ones included. GKD, Fig. 4, measures diversity by it.

  Args:
    draws: [n][N] texts, n at least 2, of which the first `_MOST_COMPARED` are
      compared: the work grows with their square.
  """
  draws = draws[:_MOST_COMPARED]
  scores = []
  for place, texts in enumerate(draws):
    others = [*zip(*draws[:place], *draws[place + 1 :], strict=True)]
    bleu = Bleu()(texts, texts, others)
    same = [text in rest for text, rest in zip(texts, others, strict=True)]
    scores.append(np.where(same, 1.0, bleu))
  return means({"self_bleu": np.mean(scores, axis=0)}, scale=100.0)
