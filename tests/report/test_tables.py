"""Tables of runs: last values, one row for the seeds of an arm."""

from gkd.report import runs
from gkd.report import tables


def _run(name, metrics=None, **config):
  return runs.Run(name, name, metrics or {}, config, "", {}, [])


def _column(table, title):
  place = list(table.header).index(title)
  return [row[place] for row in table.rows]


def test_runs_table_shows_last_values_and_the_sum_of_times():
  metrics = {
    "eval/toy/accuracy": ([10, 20], [5.0, 7.5]),
    "eval/toy/length": ([10, 20], [5.0, 7.5]),
    "train/loss": ([10, 20], [3.0, 2.5]),
    "time/update_seconds": ([10, 20], [1.0, 2.0]),
    "time/sample_seconds": ([10, 20], [4.0, 5.0]),
    "time/tokens_per_second": ([10, 20], [1e6, 1e6]),
  }
  table = tables.runs_table([_run("a", metrics)])
  assert table.header == [
    "run",
    "updates",
    "accuracy (%)",
    "training loss",
    "time",
  ]
  assert [c.text for c in table.rows[0]] == ["a", "20", "7.5", "2.5", "12 s"]


def _seed(number, accuracy):
  metrics = {"eval/toy/accuracy": ([10], [accuracy])}
  return _run(f"seed_{number}/gkd_mixed", metrics, EVAL_SPLIT="'dev'")


def test_seeds_of_an_arm_are_one_row():
  table = tables.runs_table([_seed(n, 50.0 + n) for n in range(3)])
  (row,) = table.rows
  assert row[0].text == "Mixed GKD"
  assert _column(table, "accuracy (%)")[0].text == "51.0 ± 1.0"
  assert "3 seeds" in table.note
  assert "on split dev" in table.note


def test_title_has_the_unit_and_the_task_only_where_it_tells_apart():
  one = ["eval/toy/forward_kl", "eval/toy/accuracy"]
  two = ["eval/toy/forward_kl", "eval/other/accuracy"]
  assert tables.title(one[0], one) == "forward KL (nats a sequence)"
  assert tables.title(two[1], two) == "other accuracy (%)"
