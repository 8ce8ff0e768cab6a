"""Publishes what `gkd quickstart` gave for many seeds and thread counts.

  taskset -c 0   gkd quickstart --seeds 7 --output=runs/t1_s7   # one thread
  taskset -c 0,1 gkd quickstart --seeds 7 --output=runs/t2_s7   # two
  python benchmarks/quickstart_seeds.py runs/t*_s*

Folders are named t<threads>_s<seed>; those that are not finished are left out.
What results.json has of other seeds and thread counts stays; curves are those
of the folders alone. Writes results.json, report.html, plots and the tables of
results/quickstart, the sentence of README.md, and `published.json`, which the
quickstart prints beside its own numbers.
"""

import argparse
import collections
from collections.abc import Mapping
from collections.abc import Sequence
import json
import math
from pathlib import Path
import re
import shutil
import statistics
import tempfile
import textwrap
from typing import Any

from scipy import stats

from gkd import files
from gkd.experiments.quickstart import result_rows
from gkd.report import page
from gkd.report import read

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "quickstart"
# (name in prose, the run, the run it is compared with).
DIFFERENCES = (
  ("on-policy − supervised KD", "gkd_on_policy", "supervised_kd"),
  ("mixed − supervised KD", "gkd_mixed", "supervised_kd"),
  (
    "on-policy − supervised KD on 2,000 solutions",
    "gkd_on_policy",
    "supervised_kd_labels",
  ),
)
METRICS = ("accuracy_greedy", "accuracy_sampled")
Row = Mapping[str, Any]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("folders", nargs="+", type=Path)
  publish(parser.parse_args().folders, RESULTS, ROOT / "README.md")


def publish(folders: Sequence[Path], results: Path, readme: Path) -> None:
  """Writes everything from what is published and the folders' results."""
  groups, metas, curves = {}, [], {}
  if (results / "results.json").exists():
    content = json.loads((results / "results.json").read_text())
    metas.append(content["meta"])
    for row in content["rows"]:
      groups.setdefault((row["threads"], row["seed"]), []).append(row)
  for folder in sorted(folders, key=_place):
    if not (folder / "results.json").exists():
      print(f"{folder} is not finished and left out")
      continue
    content = json.loads((folder / "results.json").read_text())
    threads, seed = _place(folder)
    groups[threads, seed] = [
      row | {"threads": threads} for row in content["rows"]
    ]
    metas.append(content["meta"])
    if threads == 1:
      curves[folder.name] = (folder / f"seed_{seed}").resolve()
  rows = [row for place in sorted(groups) for row in groups[place]]
  result = {
    "rows": rows,
    "meta": {
      "title": metas[0]["title"],
      "command": "benchmarks/quickstart_seeds.py, one gkd quickstart a seed",
      "date": _all(metas, "date"),
      "hardware": _all(metas, "hardware"),
      "split": metas[0]["split"],
      "units": metas[0]["units"],
    },
    "columns": result_rows.COLUMNS,
    "labels": result_rows.LABELS,
  }
  files.write_json(results / "results.json", result)
  files.write_json(result_rows.PUBLISHED, published(rows, result["meta"]))
  _replace(
    results / "README.md",
    r"(?<=<!-- tables -->\n).*(?=<!-- end of tables -->)",
    tables(rows, result["meta"]),
  )
  _replace(readme, r"In the quickstart \(.*?(?=With ten times)", sentence(rows))
  with tempfile.TemporaryDirectory() as scratch:
    (Path(scratch) / "results.json").write_text(json.dumps(result))
    for name, folder in curves.items():
      if folder.is_dir():
        (Path(scratch) / name).symlink_to(folder)
    runs = read.read([scratch])
    page.write_report(runs, str(results / "report.html"))
    shown = re.findall(r"plots/(\w+\.png)", (results / "README.md").read_text())
    for plot in map(Path, page.write_plots(runs, f"{scratch}/plots")):
      if plot.name in shown:
        shutil.copy(plot, results / "plots")


def published(rows: Sequence[Row], meta: Row) -> dict[str, Any]:
  """Mean and standard deviation of each run, over seeds and thread counts."""
  return {
    "date": meta["date"],
    "seeds": len({row["seed"] for row in rows}),
    "threads": sorted({row["threads"] for row in rows}),
    "rows": {
      run: {metric: _spread(members, metric) for metric in METRICS}
      for run, members in _by(rows, "run").items()
    },
  }


def tables(rows: Sequence[Row], meta: Row) -> str:
  """The tables of results/quickstart/README.md."""
  lines = [
    f"{meta['date']}; {meta['hardware']}. Test split, 1,000 problems. Mean ±"
    " standard deviation over the seeds, and in brackets the 95 % interval of"
    " the mean (t distribution). Accuracy in per cent, KL to the teacher in"
    " nats a sequence.",
    "",
    "| method | λ | labels beyond the prompts | threads | seeds | accuracy,"
    " greedy | accuracy, T = 1 | forward KL | reverse KL |",
    "|" + "---|" * 9,
  ]
  for threads, some in _by(rows, "threads").items():
    for run, members in _by(some, "run").items():
      row, is_teacher = members[0], run == "teacher"
      greedy = [x["accuracy_greedy"] for x in members]
      cells = [
        result_rows.LABELS[run],
        "–" if row["lambda"] is None else f"{row['lambda']:g}",
        row["labels"],
        str(threads),
        str(len(members)),
        f"{greedy[0]:.1f}" if is_teacher else _interval(greedy),
        _interval([x["accuracy_sampled"] for x in members]),
        *(
          "–" if is_teacher else f"{_mean(members, name):.2f}"
          for name in ("forward_kl", "reverse_kl")
        ),
      ]
      lines.append(f"| {' | '.join(cells)} |")
  lines += [
    "",
    "Differences of the same seed, in points: mean with its 95 % interval, and"
    " in how many seeds it is above 0.",
    "",
    "| difference | threads | accuracy, greedy | above 0 | accuracy, T = 1 |"
    " above 0 |",
    "|" + "---|" * 6,
  ]
  for threads, some in _by(rows, "threads").items():
    for name, run, other in DIFFERENCES:
      cells = [name, str(threads)]
      for metric in METRICS:
        values = paired(some, run, other, metric)
        above = sum(value > 0 for value in values)
        cells += [_interval(values, "+"), f"{above} of {len(values)}"]
      lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


def sentence(rows: Sequence[Row]) -> str:
  """What README.md says of the quickstart: the seeds on the fewest threads."""
  threads, some = next(iter(_by(rows, "threads").items()))
  runs = _by(some, "run")

  def cell(run: str) -> str:
    return f"{_mean(runs[run], 'accuracy_greedy'):.1f} %"

  _, run, other = DIFFERENCES[0]
  values = paired(some, run, other, "accuracy_greedy")
  text = (
    "In the quickstart (sums, 1,000 labels; CPU threads:"
    f" {threads}; seeds: {len(values)}) on-policy GKD reaches"
    f" {cell(run)} where supervised KD reaches {cell(other)} and the teacher"
    f" {cell('teacher')}: {_interval(values, '+', False)} points, paired."
  )
  text = text.replace(" %", "\u00a0%")
  return textwrap.fill(text, 84, break_on_hyphens=False) + "\n"


def paired(
  rows: Sequence[Row], run: str, other: str, metric: str
) -> list[float]:
  """Differences of two runs, seed by seed."""
  values = {(row["run"], row["seed"]): row[metric] for row in rows}
  seeds = sorted({row["seed"] for row in rows})
  return [values[run, seed] - values[other, seed] for seed in seeds]


def _place(folder: Path) -> tuple[int, int]:
  """(threads, seed) of t2_s7."""
  threads, seed = re.fullmatch(r"t(\d+)_s(\d+)", folder.name).groups()
  return int(threads), int(seed)


def _all(metas: Sequence[Row], name: str) -> str:
  """What was published and what comes now: different values, each once."""
  return " · ".join(sorted({x for y in metas for x in y[name].split(" · ")}))


def _by(rows: Sequence[Row], name: str) -> dict[Any, list[Row]]:
  groups = collections.defaultdict(list)
  for row in rows:
    groups[row[name]].append(row)
  return groups


def _mean(rows: Sequence[Row], name: str) -> float:
  return statistics.fmean(row[name] for row in rows)


def _spread(rows: Sequence[Row], name: str) -> list[float]:
  values = [row[name] for row in rows]
  deviations = [statistics.stdev(values)] if len(values) > 1 else []
  return [round(x, 2) for x in (statistics.fmean(values), *deviations)]


def _interval(
  values: Sequence[float], sign: str = "", with_deviation: bool = True
) -> str:
  """72.4 ± 4.8 [68.1, 76.7]; an interval from three values on."""
  mean, count = statistics.fmean(values), len(values)
  text = f"{mean:{sign}.1f}"
  if count < 2:
    return text
  deviation = statistics.stdev(values)
  half = stats.t.ppf(0.975, count - 1) * deviation / math.sqrt(count)
  if with_deviation:
    text += f" ± {deviation:.1f}"
  if count < 3:
    return text
  return f"{text} [{mean - half:{sign}.1f}, {mean + half:{sign}.1f}]"


def _replace(path: Path, pattern: str, text: str) -> None:
  """Puts a text into the one place of a page that a pattern finds."""
  place = re.compile(pattern, re.S)
  whole, count = place.subn(lambda _: text, path.read_text("utf-8"))
  assert count == 1, f"{path} has {count} places for {pattern}"
  files.write_text(path, whole)


if __name__ == "__main__":
  main()
