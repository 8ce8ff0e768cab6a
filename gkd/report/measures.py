"""What the name of a metric says: task, unit, interval, the teacher's score.

eval/<task>[-<split>]/<metric>[_<label>]            the student's score
eval/…/<metric>[_<label>]_ci_low, …_ci_high         its confidence interval
eval/…/teacher_<metric>[_<label>]                   the teacher's, same rows
"""

from collections.abc import Iterable
from collections.abc import Sequence
import re

from gkd.report import names as naming

_LOW, _HIGH = "_ci_low", "_ci_high"
# Where a smaller number is the better one; and where neither is.
_SMALLER = re.compile(r"kl|loss|perplexity|error|truncation")
_NEUTRAL = re.compile(
  r"seconds|steps|updates|length|bytes|seed|tokens|count|entropy|parameters"
)
_PER_CENT = re.compile(r"accuracy|exact_match")


def bounds(name: str) -> tuple[str, str]:
  """Names of the ends of a metric's confidence interval."""
  return name + _LOW, name + _HIGH


def of_teacher(name: str) -> str:
  """Name of the teacher's score for the same metric and examples."""
  head, slash, last = name.rpartition("/")
  return f"{head}{slash}teacher_{last}"


def own(found: Iterable[str]) -> list[str]:
  """Metrics that stand for themselves: no bound, no teacher's score."""
  known = set(found)
  companions = {of_teacher(name) for name in known if is_score(name)}
  return sorted(
    name for name in known - companions if not name.endswith((_LOW, _HIGH))
  )


def is_score(name: str) -> bool:
  """Whether an evaluation made it."""
  return name.startswith("eval/")


def is_headline(name: str) -> bool:
  """Whether it belongs into the summary of an evaluation."""
  return not re.search(r"per_token|length|truncation", metric(name))


def headlines(found: Iterable[str]) -> list[str]:
  """Scores for the summary, task by task, KLs last."""
  scores = [n for n in own(found) if is_score(n) and is_headline(n)]
  return sorted(scores, key=lambda n: (task(n), "_kl" in n, n))


def task(name: str) -> str:
  """eval/gsm8k-test/accuracy -> gsm8k-test; "" for what is no score."""
  return "/".join(name.split("/")[1:-1]) if is_score(name) else ""


def with_task(name: str, task: str | None) -> str:
  """The score's name with another task; None leaves it as it is."""
  return name if task is None else f"eval/{task}/{metric(name)}"


def metric(name: str) -> str:
  """eval/gsm8k-test/accuracy -> accuracy; other names as they are."""
  return name.rpartition("/")[2] if is_score(name) else name


def tasks(scores: Iterable[str]) -> list[str]:
  """The tasks of some scores, each once."""
  return list(dict.fromkeys(map(task, scores)))


def title(name: str, others: Sequence[str] = ()) -> str:
  """eval/toy/forward_kl -> forward KL (nats a sequence).

  The task is left out where all `others` are of the same one.
  """
  unit = units(name)
  return words(name, others) + (f" ({unit})" if unit else "")


def words(name: str, others: Sequence[str] = ()) -> str:
  """`title` without the unit."""
  last = metric(name)
  label = re.search(r"_t(\d[\d.]*(?:e-?\d+)?)$", last)
  found = naming.plain(last[: label.start()] if label else last)
  if is_score(name):
    found = re.sub(r"^teacher ", "teacher's ", found)
    if len(tasks(others)) != 1:
      found = f"{task(name)} {found}"
  return f"{found}, T = {label.group(1)}" if label else found


def units(name: str) -> str:
  """Unit of a score, as the contract of its name says."""
  if not is_score(name):
    return ""
  if name.endswith("_kl_per_token"):
    return "nats a token"
  if "_kl" in metric(name):
    return "nats a sequence"
  return "%" if _PER_CENT.search(metric(name)) else ""


def decimals(name: str) -> int | None:
  """Digits after the point in a column; None for as many as it takes."""
  if _PER_CENT.search(metric(name)) or name.endswith("_seconds"):
    return 1
  return 2 if "_kl" in metric(name) else None


def better(name: str) -> int:
  """1 where more is better, -1 where less is, 0 where neither."""
  if _NEUTRAL.search(metric(name)):
    return 0
  return -1 if _SMALLER.search(metric(name)) else 1
