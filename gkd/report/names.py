"""Names of methods and runs, as a reader meets them and in that order."""

from collections.abc import Sequence
import os
import re

# By `method` of a row of results.
METHODS = {
  "teacher": "Teacher",
  "sft": "Student after SFT",
  "seqkd": "SeqKD",
  "supervised_kd": "Supervised KD",
  "gkd_mixed": "Mixed GKD",
  "gkd_on_policy": "On-policy GKD",
}
# By the folder of a run: methods that are run in two ways have two of them.
ARMS = {
  "teacher": "Teacher",
  "student": "Student after SFT (start)",
  "sft": "Student after SFT",
  "sft_continued": "SFT continued",
  "seqkd": "SeqKD",
  "supervised_kd": "Supervised KD",
  "supervised_kd_labels": "Supervised KD on solutions",
  "gkd_mixed": "Mixed GKD",
  "gkd_on_policy": "On-policy GKD",
}
_SEED = re.compile(r"seed[_-]?(\d+)")


def arm(name: str, path: str) -> str:
  """What the runs of several seeds have in common.

  Args:
    name: of the run within a report, as `seed_1/seqkd`.
    path: its directory; names the arm where the name is a seed alone.
  """
  parts = [part for part in name.split("/") if not _SEED.fullmatch(part)]
  if not parts:
    above = os.path.abspath(path).split(os.sep)
    parts = [part for part in above if part and not _SEED.fullmatch(part)][-1:]
  return "/".join(ARMS.get(part, part) for part in parts)


def seed(name: str) -> str:
  """The number in a folder called seed_<number>; empty without one."""
  found = [_SEED.fullmatch(part) for part in name.split("/")]
  return next((match.group(1) for match in reversed(found) if match), "")


def without_seed(text: str) -> str:
  """A value of a setting with the seed's folder left open."""
  return _SEED.sub("seed_*", text)


def place(name: str) -> int:
  """Position of a method or of a run's folder in reading order."""
  order = list(ARMS)
  return order.index(name) if name in ARMS else len(order)


def short(paths: Sequence[str]) -> list[str]:
  """The last parts of the paths that tell them apart.

  A folder inside another of them is called after that one: sft, sft/scores.
  """
  whole = [os.path.abspath(path) for path in paths]
  above = {
    path: next((p for p in _parents(path) if p in whole), None)
    for path in whole
  }
  tops = [path for path in whole if above[path] is None]
  named = dict(zip(tops, _endings(tops), strict=True))
  # A folder comes after the one that it is in.
  for path in sorted(whole):
    if path not in named:
      parent = above[path]
      named[path] = f"{named[parent]}/{os.path.relpath(path, parent)}"
  return [named[path] for path in whole]


def _parents(path: str) -> list[str]:
  """The folders that a path is in, the nearest first."""
  parts = path.split(os.sep)
  return [os.sep.join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _endings(paths: Sequence[str]) -> list[str]:
  """The shortest endings of paths, of one length, that are all different."""
  parts = [path.split(os.sep) for path in paths]
  for length in range(1, max(map(len, parts), default=0) + 1):
    names = ["/".join(part[-length:]) for part in parts]
    if len(set(names)) == len(names):
      return names
  return list(paths)


def order(name: str) -> list[tuple[int, int | str]]:
  """Sort key of folders: known runs in their order; run_2 before run_10."""
  if name in ARMS:
    return [(-1, place(name))]
  return [
    (0, int(part)) if part.isdigit() else (1, part)
    for part in re.split(r"(\d+)", name)
    if part
  ]


def plain(name: str) -> str:
  """forward_kl -> forward KL."""
  return re.sub(r"\bkl\b", "KL", name.replace("_", " "))


def divergence(name: str) -> str:
  """ForwardKL -> forward KL; TotalVariation -> total variation."""
  words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
  return re.sub(r"\b[A-Z](?=[a-z])", lambda m: m.group(0).lower(), words)
