"""Turns runs/<task>/ of launch/real_tasks.sh into results/<task>/results.json.

  python launch/real_tasks_table.py --hardware="one NVIDIA H100" gsm8k

Also copies the distillation runs' metrics.jsonl, and prints the table and five
predictions of each method to read.
"""

import argparse
import datetime
import json
from pathlib import Path
import re
import shutil

METHODS = {
  "teacher": "ground truth",
  "student": "ground truth",
  "supervised_kd": "ground truth",
  "gkd_on_policy": "none",
}
# What the report says of the columns, and the charts that they are drawn in.
_PERCENT = {"unit": "%", "direction": "max", "chart": "Accuracy"}
_BLEU = {"direction": "max", "chart": "BLEU"}
_ROUGE = {"direction": "max", "chart": "ROUGE"}
COLUMNS = {
  "accuracy": {"title": "accuracy", **_PERCENT},
  "accuracy_with_calculator": {"title": "with calculator", **_PERCENT},
  "bleu": {"title": "BLEU", **_BLEU},
  "rouge1": {"title": "ROUGE-1", **_ROUGE},
  "rouge2": {"title": "ROUGE-2", **_ROUGE},
  "rougeL": {"title": "ROUGE-L", **_ROUGE},
  "length": {"title": "length", "unit": "tokens"},
  "truncation_rate": {"title": "truncation rate", "direction": "min"},
  "train_seconds": {"title": "training", "unit": "s", "chart": "Training time"},
  "test_seconds": {"title": "test", "unit": "s"},
}
# By the folder of a run, in reading order.
LABELS = {
  "teacher": "Teacher",
  "student": "Student after SFT (start)",
  "supervised_kd": "Supervised KD",
  "gkd_on_policy": "On-policy GKD",
}
COPIED = ("supervised_kd", "gkd_on_policy")
EXAMPLES = 5


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("tasks", nargs="+", metavar="TASK")
  parser.add_argument("--hardware", required=True)
  parser.add_argument("--runs", default="runs", type=Path)
  parser.add_argument("--output", default="results", type=Path)
  args = parser.parse_args()
  for task in args.tasks:
    folder = args.runs / task
    rows = [row(folder, method) for method in METHODS if scored(folder, method)]
    output = args.output / task
    output.mkdir(parents=True, exist_ok=True)
    content = {
      **description(task, rows, args.hardware, datetime.date.today()),
      "rows": rows,
      "stages": stages(folder),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (output / "results.json").write_text(text + "\n")
    for method in COPIED:
      if (folder / method / "metrics.jsonl").is_file():
        shutil.copy(
          folder / method / "metrics.jsonl", output / f"{method}.jsonl"
        )
    print(table(task, rows))
    print(examples(folder))


def description(
  task: str, rows: list[dict], hardware: str, date: datetime.date
) -> dict:
  """What `gkd report` says of the table."""
  return {
    "meta": {
      "title": f"Small models on {task}",
      "command": f"launch/real_tasks.sh train {task}",
      "split": "test",
      "hardware": hardware,
      "date": date.isoformat(),
    },
    "columns": {n: about for n, about in COLUMNS.items() if n in rows[0]},
    "labels": LABELS,
  }


def scored(folder: Path, method: str) -> bool:
  return (folder / "test" / method / "metrics.json").is_file()


def row(folder: Path, method: str) -> dict:
  """One method's scores on the test split, and what its last stage was."""
  scores = json.loads((folder / "test" / method / "metrics.json").read_text())
  times = {stage["stage"]: stage for stage in stages(folder)}
  config = (folder / method / "config.gin").read_text()
  lines = (folder / method / "metrics.jsonl").read_text().splitlines()
  info = (folder / method / "run.json").read_text()
  return {
    "method": "student_sft" if method == "student" else method,
    "run": method,
    "labels": METHODS[method],
    "test_rows": len(predictions(folder, method)),
    **{name.rpartition("/")[2]: value for name, value in scores.items()},
    "updates": json.loads(lines[-1])["step"],
    "batch_size": int(re.search(r"BATCH_SIZE = (\d+)", config)[1]),
    "seed": int(re.search(r"RANDOM_SEED = (\d+)", config)[1]),
    "model": json.loads(info)["model"],
    "train_seconds": times[method]["seconds"],
    "test_seconds": times[f"test_{method}"]["seconds"],
    "command": times[method]["command"],
    "test_command": times[f"test_{method}"]["command"],
  }


def stages(folder: Path) -> list[dict]:
  lines = (folder / "times.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def predictions(folder: Path, method: str) -> list[dict]:
  (file,) = (folder / "test" / method / "predictions").glob("*.jsonl")
  return [json.loads(line) for line in file.read_text().splitlines()]


def table(task: str, rows: list[dict]) -> str:
  """The numbers as Markdown."""
  names = [name for name in COLUMNS if name in rows[0]]
  head = ["method", "labels", "updates", *names]
  lines = [f"\n## {task}\n", " | ".join(head), "|".join(["---"] * len(head))]
  for values in rows:
    cells = [values["method"], values["labels"], str(values["updates"])]
    cells += [f"{values[name]:.2f}" for name in names]
    lines.append(" | ".join(cells))
  return "\n".join(lines)


def examples(folder: Path) -> str:
  """The same rows, evenly spaced, as every method answers them."""
  found = {
    method: predictions(folder, method)
    for method in METHODS
    if scored(folder, method)
  }
  size = len(next(iter(found.values())))
  lines = []
  for place in range(0, size, -(-size // EXAMPLES)):
    first = next(iter(found.values()))[place]
    lines += [f"\n[{place}] {first['prompt']}", f"  = {first['reference']}"]
    lines += [
      f"  {method}: {rows[place]['prediction']}"
      for method, rows in found.items()
    ]
  return "\n".join(lines)


if __name__ == "__main__":
  main()
