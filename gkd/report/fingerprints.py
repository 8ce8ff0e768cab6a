"""What runs say of themselves in `run.json`, side by side.

Settings and the content hashes of models and data, where arms differ in them,
and which model wrote the training texts.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from gkd.report import arms
from gkd.report import formats
from gkd.report.arms import Run
from gkd.report.tables import Cell
from gkd.report.tables import Table

# So many columns are read without scrolling.
_MAX_ARMS = 4
_MAX_FACTS = 4
# Each run has a folder of its own; its name says which.
_FOLDERS = ("model_dir", "output")
# The model that wrote texts a run was trained on, at any depth of run.json.
_WRITTEN = "written_by."
# Settings and sizes have tables of their own; an identity is of settings.
_NO_FACTS = ("settings", "model", "identity", "starts")

Facts = Mapping[str, Mapping[str, str]]  # {arm: {dotted name: value}}


def settings(runs: Sequence[Run]) -> tuple[Table | None, Table | None]:
  """Settings that differ: those of all arms, then those that some lack."""
  facts = _facts([run for run in runs if run.settings], lambda r: r.settings)
  names = _differing(facts)
  shared = [n for n in names if all(n in values for values in facts.values())]
  others = [name for name in names if name not in shared]
  note = "Settings that are alike in all runs are left out."
  return (
    _table("setting", shared, facts, note),
    _table("setting", others, facts, "–: the run has no such setting."),
  )


def facts(runs: Sequence[Run]) -> Table | None:
  """Models and data that differ, from the rest of run.json."""
  arm_facts = _facts(runs, _about)
  names = [name for name in _differing(arm_facts) if _WRITTEN not in name]
  return _table("fact", names, arm_facts)


def written(runs: Sequence[Run]) -> Table | None:
  """The models that wrote training texts; None where no run has one."""
  facts: dict[str, dict[str, str]] = {}
  for arm, values in _facts(runs, _about).items():
    split = [
      (*n.split(_WRITTEN), v) for n, v in values.items() if _WRITTEN in n
    ]
    several = len({place for place, _, _ in split}) > 1
    if split:
      facts[arm] = {
        (place if several else "") + name: v for place, name, v in split
      }
  names = dict.fromkeys(name for values in facts.values() for name in values)
  return _table("fact", list(names), facts)


def contents(runs: Sequence[Run]) -> dict[str, str]:
  """{arm: what tells it from the others}, by settings, models and data.

  "student fraction 1.0 · divergence ForwardKL · teacher 0f1e2d3c4b5a…"
  """
  words = {}
  for is_evaluation in (False, True):
    chosen = [run for run in runs if run.is_evaluation == is_evaluation]
    facts = _facts(chosen, _identity)
    differing = _telling_apart(facts)
    for arm, values in facts.items():
      known = [n for n in differing if values.get(n, "–") != "–"]
      own = [f"{_plain(n)} {values[n]}" for n in known]
      words[arm] = " · ".join(own[:_MAX_FACTS])
      if len(own) > _MAX_FACTS:
        words[arm] += f" · {len(own) - _MAX_FACTS} more"
  return words


def _telling_apart(facts: Facts) -> list[str]:
  """Names that differ: first those that together tell most arms apart."""
  chosen, left, of_arms = [], _differing(facts), facts.values()
  while left:

    def count_distinct(name: str) -> int:
      names = [*chosen, name]
      return len({tuple(map(v.get, names)) for v in of_arms})

    best = max(left, key=count_distinct)
    chosen.append(best)
    # TRAIN_STEPS is also the end of a schedule: said once.
    left = [n for n in left if any(v.get(n) != v.get(best) for v in of_arms)]
  return chosen


def _identity(run: Run) -> dict[str, Any]:
  """Settings, and hashes of the models' and the data's content."""
  hashes = {
    name: value
    for name, value in arms.flatten(run.about)
    if name.endswith(".content_sha256") or name == "contents.training_data"
  }
  return run.settings | hashes


def _plain(name: str) -> str:
  """objective.divergence.type -> divergence; the same for hashes of models."""
  parts = [p for p in name.split(".") if p not in ("type", "content_sha256")]
  return formats.plain(parts[-1])


def _about(run: Run) -> dict[str, Any]:
  """What is not among the settings, which have the models' sizes too."""
  about = {k: v for k, v in run.about.items() if k not in _NO_FACTS}
  facts = arms.flatten(about)
  return {k: v for k, v in facts if "config" not in k.split(".")}


def _facts(
  runs: Sequence[Run], facts_of: Callable[[Run], Mapping[str, Any]]
) -> Facts:
  """Texts of the facts of each arm; all of them where its seeds differ."""
  facts: dict[str, dict[str, str]] = {}
  for arm in arms.by_arm(runs):
    run_facts = [facts_of(run) for run in arm.runs]
    folders = [set(run.name.split("/")) for run in arm.runs]
    common = set.intersection(*folders)
    facts[arm.name] = {}
    for name in dict.fromkeys(name for values in run_facts for name in values):
      texts = [formats.setting(values.get(name)) for values in run_facts]
      if len(set(texts)) > 1:
        texts = [
          arms.with_stars(text, own - common)
          for text, own in zip(texts, folders, strict=True)
        ]
      facts[arm.name][name] = " · ".join(dict.fromkeys(texts))
  return facts


def _differing(facts: Facts) -> list[str]:
  names = sorted({name for values in facts.values() for name in values})
  return [
    name
    for name in names
    if len({values.get(name) for values in facts.values()}) > 1
    and name.split(".")[-1] not in _FOLDERS
  ]


def _table(
  first: str, names: Sequence[str], facts: Facts, note: str = ""
) -> Table | None:
  """Names below each other; beside each other where there are more arms."""
  if not names:
    return None
  rows = [[name, *(v.get(name, "–") for v in facts.values())] for name in names]
  header = [first, *facts]
  if len(facts) > max(_MAX_ARMS, len(rows)):
    header, *rows = zip(header, *rows, strict=True)
    header = ["run", *header[1:]]
  title = f"{first.capitalize()}s of the runs"
  return Table(title, header, [list(map(Cell, row)) for row in rows], note)
