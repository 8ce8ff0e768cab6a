"""Injects every fault of the reliability table and writes the table.

python -m tests.faults.faults --output=results/reliability
"""

import argparse
import datetime
import json
import os
from pathlib import Path
import platform
import sys
import tempfile
from typing import Any

from tests.faults.fault_injection import FAULTS
from tests.faults.fault_injection import verdict
from tests.faults.harness import Harness


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--output", default="results/reliability")
  parser.add_argument("--only", nargs="*", help="names of faults")
  args = parser.parse_args()
  rows, wrong = [], []
  with tempfile.TemporaryDirectory() as scratch:
    harness = Harness(Path(scratch))
    for fault, exit_code in FAULTS.items():
      if args.only and fault.__name__ not in args.only:
        continue
      row = fault(harness)
      # Paths of this machine mean nothing elsewhere.
      rows.append(json.loads(json.dumps(row).replace(scratch, "…")))
      print(f"{row['fault']}: {row['exit_code']} · {row['said']}", flush=True)
      print(f"  left: {row['left']} · again: {row['again']}", flush=True)
      if fails := verdict(row, exit_code):
        wrong.append(f"{row['fault']}: {fails}")
        print(f"  WRONG: {fails}", *row["stderr"], sep="\n", flush=True)
      del rows[-1]["stderr"]  # long, and of no use where nothing is wrong
  report = {
    "command": "python -m tests.faults.faults",
    "date": datetime.date.today().isoformat(),
    "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores",
    "python": platform.python_version(),
    "faults": rows,
  }
  output = Path(args.output)
  output.mkdir(parents=True, exist_ok=True)
  (output / "faults.json").write_text(json.dumps(report, indent=2) + "\n")
  (output / "faults.md").write_text(_table(report))
  print(f"{len(wrong)} of {len(rows)} faults are not dealt with as they should")
  return int(bool(wrong))


def _table(report: dict[str, Any]) -> str:
  """The report as a page in Markdown."""

  def cell(value):
    return str("–" if value is None else value).replace("|", "\\|")

  lines = [
    "# What happens when something goes wrong",
    "",
    f"Each fault was done for real: `{report['command']}`, {report['date']},"
    f" {report['hardware']}, Python {report['python']}. “Bit-identical”"
    " compares parameters, optimizer state, every line of metrics.jsonl without"
    " what a clock measures, predictions and samples with those of an"
    " undisturbed run.",
    "",
    "| fault | exit code | said | left behind | the same command again |",
    "|---|---|---|---|---|",
  ]
  lines += [
    "| " + " | ".join(cell(row[name]) for name in columns) + " |"
    for columns in [("fault", "exit_code", "said", "left", "again")]
    for row in report["faults"]
  ]
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main())
