"""The finding of a run's guard, in words and on log-log axes."""

import json
import math

from gkd.report import guard_findings
from gkd.report import page
from gkd.report import read
from tests.report.example_runs import run
from tests.report.example_runs import write

FOUND = {
  "metric": "eval/toy/forward_kl_per_token",
  "series": {
    "steps": [1, 10, 100, 1000],
    "held_out": [1.0, 0.1, 0.01, 0.02],
    "trained": [None, 0.1, 0.01, 0.001],
  },
  "power_law": {"intercept": 0.0, "slope": -1.0, "steps": [10, 100]},
  "alarm": {"onset": 1000},
  "words": "Teacher hacking suspected from step 1,000 on.",
}


def test_an_alarm_shows_the_law_from_its_window_on_and_the_onset():
  alarmed, quiet = guard_findings.charts([run("a", guard=FOUND), run("b")])
  (chart,) = alarmed
  assert quiet == []
  held_out, trained, law, onset = chart.series
  assert held_out.ys == FOUND["series"]["held_out"]
  assert list(trained.xs) == [10, 100, 1000]
  assert law.xs == [10, 100, 1000]
  assert all(
    math.isclose(x * y, 1) for x, y in zip(law.xs, law.ys, strict=True)
  )
  assert set(onset.xs) == {1000}
  assert (chart.x_scale, chart.y_scale) == ("log", "log")


def test_values_without_a_logarithm_are_left_out():
  values = {"steps": [1, 2], "held_out": [-0.1, 0.2], "trained": [None, 0.0]}
  found = {"words": "Seen nothing.", "series": values}
  _, (chart,) = guard_findings.charts([run("a", guard=found)])
  (line,) = chart.series
  assert (line.xs, line.ys) == ([2], [0.2])


def test_the_table_counts_the_alarms_of_an_arm():
  quiet = FOUND | {"alarm": None, "words": "Seen nothing."}
  runs = [run(f"{n}", guard=g, arm="a") for n, g in enumerate((quiet, FOUND))]
  table = guard_findings.table([*runs, run("b")])
  (row,) = [[cell.text for cell in row] for row in table.rows]
  assert row == ["a", "1 of 2", "1,000", FOUND["words"]]
  assert guard_findings.table([run("b")]) is None


def test_the_page_has_the_words_and_folds_what_gave_no_sign(tmp_path):
  quiet = FOUND | {"alarm": None, "power_law": None, "words": "Seen nothing."}
  for name, found in (("a", FOUND), ("b", quiet), ("c", {"no": "guard"})):
    folder = write(tmp_path / name, [{"step": 1, "train/loss": 1.0}])
    (folder / "guard.json").write_text(json.dumps(found))
  source = page.render(read.read([str(tmp_path)]))
  shown, folded = source.split("1 without a sign")
  assert "Guard against teacher hacking" in shown
  assert FOUND["words"] in shown
  assert "on the texts as trained" in shown
  assert quiet["words"] in folded
