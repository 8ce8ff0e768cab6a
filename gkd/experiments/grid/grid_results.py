"""The table of a grid: the last numbers of each job, as JSON and as CSV.

`results.json` is what `gkd report` reads; means over seeds are its business.
"""

from collections.abc import Mapping
import csv
import datetime
import io
import json
from pathlib import Path
from typing import Any

from gkd import files
from gkd.experiments.grid import runner
from gkd.experiments.grid.jobs import Grid
from gkd.experiments.grid.jobs import Job
from gkd.report import arms
from gkd.report import formats
from gkd.report import metric_info
from gkd.report import result_files

CSV_FILE = "table.csv"
JSON_FILE = "results.json"
_COMMANDS = ("train", "evaluate")
_LOSS = {"train/loss": {"title": "training loss", "direction": "min"}}


def write(grid: Grid, folder: Path, command: str) -> None:
  """Writes the table of the jobs that are done."""
  rows, infos, labels, axes = [], {}, {}, {}
  done = runner.done_jobs(grid.jobs, folder)
  for job in grid.jobs:
    if job.name in done and job.command in _COMMANDS:
      rows.append(_row(job, folder, done[job.name]))
      path = folder / job.name / "metric_info.json"
      infos |= result_files.json_object(str(path))
      own = {axis: x for axis, x in job.axes.items() if axis != "seed"}
      values = ", ".join(map(str, own.values()))
      label = f"{job.stage}: {values}" if values else job.stage
      name = Path(job.name).name
      labels[name] = formats.plain(label)
      numbers = {axis: axis_value(x) for axis, x in own.items()}
      axes[name] = {"stage": job.stage, **numbers}
  date = datetime.date.today().isoformat()
  content = {
    "rows": rows,
    "meta": {"title": grid.title, "command": command, "date": date},
    "columns": _columns(infos),
    "labels": labels,
    "axes": axes,
  }
  # Unsorted: the order is that of the report.
  files.write_text(folder / JSON_FILE, json.dumps(content, indent=2) + "\n")
  text = io.StringIO(newline="")
  names = dict.fromkeys(name for row in rows for name in row)
  table = csv.DictWriter(text, list(names), lineterminator="\n")
  table.writeheader()
  table.writerows(rows)
  files.write_text(folder / CSV_FILE, text.getvalue())


def _row(job: Job, folder: Path, seconds: float) -> dict[str, Any]:
  """Names and numbers of one job; null for what was not finite."""
  path = folder / job.name
  lines, _ = result_files.json_lines(str(path / "metrics.jsonl"))
  values = {name: x for line in lines for name, x in line.items()}
  values |= result_files.json_object(str(path / "metrics.json"))
  about = result_files.json_object(str(path / "run.json"), {"settings": dict})
  settings = dict(arms.flatten(about.get("settings") or {}))
  return {
    "run": path.name,
    "stage": job.stage,
    "method": job.stage,
    "lambda": settings.get("rollout.student_fraction"),
    "divergence": settings.get("objective.divergence.type"),
    **{axis: axis_value(value) for axis, value in job.axes.items()},
    "seconds": seconds,
    **{
      n: x for n, x in values.items() if not n.startswith(("time/", "compile/"))
    },
  }


def axis_value(value: Any) -> Any:
  """The value of an axis; its name as a number where it is one."""
  try:  # as JSON has numbers: 1_1, 007 and nan are names
    number = json.loads(str(value), parse_constant=str)
  except ValueError:
    return value
  return number if type(number) in (int, float) else value


def _columns(infos: Mapping[str, Any]) -> dict[str, dict[str, str]]:
  """Those that the report shows: the student's scores, and the loss."""
  scores = {}
  for name, info in infos.items():
    [scores[name]] = metric_info.structured({name: {}}, {name: info}, {}, "")
  return {
    name: {
      "title": metric_info.describe(score, list(scores.values())),
      "unit": score.unit,
      "direction": score.direction,
    }
    for name, score in scores.items()
    if score.role == "student" and metric_info.is_headline(score)
  } | _LOSS
