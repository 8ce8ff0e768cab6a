"""Published tables are of the rows of each thread count, seed by seed."""

import json

import pytest
from scipy import stats

from benchmarks import quickstart_seeds
from gkd.experiments.quickstart import pipeline
from gkd.experiments.quickstart import result_rows


def write(folder, seed, scores) -> None:
  """What `gkd quickstart` leaves of one seed: 10 points between the runs."""
  rows = [
    {
      "method": method.name,
      "run": method.run,
      "labels": method.labels,
      "seed": seed,
      "lambda": None,
      "divergence": None,
      "accuracy_greedy": scores.get(method.run, 10.0 + seed),
      "accuracy_sampled": 20.0,
      "forward_kl": 1.0,
      "reverse_kl": 2.0,
      "train_seconds": 3.0,
    }
    for method in (pipeline.TEACHER_ROW, pipeline.STUDENT, *pipeline.METHODS)
  ]
  about = {"title": "t", "date": "d", "hardware": "h", "split": "test"}
  folder.mkdir()
  content = {"rows": rows, "meta": about | {"units": "u"}}
  (folder / "results.json").write_text(json.dumps(content))


def test_differences_are_paired_by_seed_and_thread_count(tmp_path, monkeypatch):
  for seed, score in enumerate((14.0, 18.0, 13.0)):
    write(tmp_path / f"t1_s{seed}", seed, {"gkd_on_policy": score})
  write(tmp_path / "t2_s0", 0, {"gkd_on_policy": 5.0})
  (tmp_path / "t2_s1").mkdir()  # not finished
  page, readme = tmp_path / "README.md", tmp_path / "front.md"
  page.write_text("a\n<!-- tables -->\n<!-- end of tables -->\nb")
  readme.write_text("a\n\nIn the quickstart (x) y.\nWith ten times z")
  monkeypatch.setattr(result_rows, "PUBLISHED", tmp_path / "published.json")
  folders = sorted(tmp_path.glob("t*_s*"))
  quickstart_seeds.publish(folders[1:], tmp_path, readme)
  quickstart_seeds.publish(folders[:1], tmp_path, readme)  # the others stay
  text = page.read_text()
  # 4, 7 and 1 points: the mean is 4, its interval that of a t-test.
  low, high = stats.ttest_1samp([4, 7, 1], 0).confidence_interval()
  expected = f"+4.0 ± 3.0 [{low:+.1f}, {high:+.1f}] | 3 of 3"
  assert f"| on-policy − supervised KD | 1 | {expected} |" in text
  assert "| on-policy − supervised KD | 2 | -5.0 | 0 of 1 |" in text
  assert "CPU threads: 1; seeds: 3) on-policy" in " ".join(
    readme.read_text().split()
  )
  spread = json.loads(result_rows.PUBLISHED.read_text())["rows"]
  assert spread["gkd_on_policy"]["accuracy_greedy"] == [12.5, 5.45]
  assert len(json.loads((tmp_path / "results.json").read_text())["rows"]) == 32
  assert "threads 2" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("split", "shown"), [("test", True), ("dev", False)])
def test_own_numbers_stand_beside_the_published_ones(split, shown):
  row = {"run": "gkd_on_policy"} | dict.fromkeys(result_rows.COLUMNS, 50.0)
  row |= dict.fromkeys(("method", "lambda", "divergence", "labels", "seed"))
  text = result_rows.text([row], split)
  published = json.loads(result_rows.PUBLISHED.read_text())
  mean, deviation = published["rows"]["gkd_on_policy"]["accuracy_greedy"]
  assert (f"{mean:.1f} ± {deviation:4.1f}" in text) == shown
  assert ("published: mean ± standard deviation" in text) == shown
