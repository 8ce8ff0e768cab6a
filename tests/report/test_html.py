"""One page that holds everything and breaks on nothing."""

import html.parser
import itertools
import json
import os
import re

import pytest

from gkd.errors import UserError
from gkd.report import html as report
from gkd.report import texts

_VOID = {"meta", "path", "use", "rect", "br", "wbr"}


class _Balance(html.parser.HTMLParser):
  """Fails on a tag that is closed in the wrong place; collects the text."""

  def __init__(self):
    super().__init__()
    self.stack = []
    self.text = []

  def handle_starttag(self, tag, attrs):
    if tag not in _VOID:
      self.stack.append(tag)

  def handle_endtag(self, tag):
    if tag not in _VOID:
      assert self.stack.pop() == tag, self.getpos()

  def handle_data(self, data):
    self.text.append(data)


def _run(directory, accuracy, *, prompt="2 + 3 = ?"):
  (directory / "predictions").mkdir(parents=True)
  (directory / "samples").mkdir()
  with open(directory / "metrics.jsonl", "w") as file:
    for step in (0, 10, 20):
      line = {
        "step": step,
        "train/loss": 2.0 - step / 20,
        "train/lambda": None,
        "train/odd": 1.0,
        "eval/toy/accuracy": accuracy,
        "eval/toy/forward_kl": 1.0,
        "time/update_seconds": 2.0,
        "memory/peak_bytes": 1e6,
      }
      file.write(json.dumps(line) + "\n")
  (directory / "config.gin").write_text(f"LEARNING_RATE = {accuracy}\n")
  record = {
    "row": 0,
    "prompt": prompt,
    "reference": "5",
    "text": f"5 or {accuracy}",
    "prediction": "5" if accuracy > 50 else "6",
    "length": 3,
    "truncated": False,
  }
  path = directory / "predictions" / "toy-test-00000020.jsonl"
  path.write_text(json.dumps(record) + "\n")
  sample = {"row": 1, "source": "student", "prompt": prompt, "text": "sampled"}
  path = directory / "samples" / "step_00000020.jsonl"
  path.write_text(json.dumps(sample) + "\n")


def _page(path):
  with open(path, encoding="utf-8") as file:
    text = file.read()
  parser = _Balance()
  parser.feed(text)
  parser.close()
  assert parser.stack == []
  return text, " ".join(" ".join(parser.text).split())


@pytest.fixture
def runs(tmp_path):
  return _set_of_runs(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  """Path of the page of `runs`, drawn once."""
  folder = _set_of_runs(tmp_path_factory.mktemp("runs"))
  output = folder / "out" / "report.html"
  assert report.write_report([str(folder)], str(output)) == str(output)
  return output


def _set_of_runs(folder):
  _run(folder / "sft", 20.0)
  _run(folder / "gkd", 60.5)
  rows = [
    {"method": "sft", "seed": 0, "accuracy_greedy": 20.0, "lambda": None},
    {
      "method": "gkd_on_policy",
      "seed": 0,
      "accuracy_greedy": 60.5,
      "lambda": 1.0,
      "divergence": "reverse KL",
    },
  ]
  meta = {"title": "A <toy>", "hardware": "2 CPU cores"}
  path = folder / "results.json"
  path.write_text(json.dumps({"rows": rows, "meta": meta}))
  return folder


def test_page_holds_results_curves_settings_and_texts(page):
  _, text = _page(page)
  for expected in (
    "A <toy>",
    "2 CPU cores",
    "On-policy GKD",
    "accuracy (%)",
    "forward KL (nats a sequence)",
    "Training loss",
    "Where the time went",
    "LEARNING_RATE",
    "5 or 60.5 ✓ right",
    "5 or 20.0 ✗ wrong",
    "sampled",
    "1 more curves",
  ):
    assert expected in text, expected


def test_page_loads_nothing_from_outside(page):
  text, _ = _page(page)
  links = set(re.findall(r"https?://[^\"'\s]+", text))
  assert links <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
  assert not re.search(r"<(script|link|img|iframe)\b|@import|url\((?!#)", text)


def test_text_of_a_model_cannot_change_the_page(tmp_path):
  _run(tmp_path / "run", 1.0, prompt='<script>alert("&amp;")</script>')
  path = report.write_report([str(tmp_path)], str(tmp_path / "report.html"))
  text, shown = _page(path)
  assert "<script" not in text
  assert '<script>alert("&amp;")</script>' in shown


def test_chart_without_any_number_is_left_out(page):
  _, text = _page(page)
  assert "λ as realised" not in text  # all values are null


def test_rows_on_which_runs_disagree_are_shown_first():
  def answers(predictions):
    return {row: {"prediction": p} for row, p in enumerate(predictions)}

  first = answers("aaaaaaaaaa")
  second = answers("aaaaaaaaba")
  assert texts._interesting([first, second]) == [0, 1, 2, 3, 4, 8]


def test_page_says_which_runs_are_not_whole(runs):
  with open(runs / "sft" / "metrics.jsonl", "a") as file:
    file.write('{"step": 30, "tr')
  (runs / "sft" / "config.gin").write_text("TRAIN_STEPS = 40\n")
  with open(runs / "gkd" / "metrics.jsonl", "a") as file:
    file.write('{"step": 21, "train/loss": null}\n')
  (runs / "gkd" / "config.gin").unlink()
  (runs / "new").mkdir()
  (runs / "new" / "config.gin").write_text("TRAIN_STEPS = 40\n")
  _, text = _page(report.write_report([str(runs)], str(runs / "report.html")))
  for expected in (
    "20 of 40",
    "Student after SFT reported 20 of 40 updates (50 %) so far: it was stopped",
    "Student after SFT the last line of metrics.jsonl is torn",
    "gkd stopped at update 21: its loss or gradient was not finite.",
    "gkd config.gin is missing",
    "new has reported no numbers yet",
    "× marks where the next value was not finite.",
  ):
    assert expected in text, expected


def test_page_shows_intervals_teacher_tasks_and_evaluations(tmp_path):
  for name, value in (("sft", 40.0), ("gkd", 50.0)):
    folder = tmp_path / name
    folder.mkdir()
    scores = {
      f"eval/{task}/{metric}": value + plus
      for task in ("toy-test", "toy-validation")
      for metric, plus in (
        ("accuracy", 0),
        ("accuracy_ci_low", -2),
        ("accuracy_ci_high", 3),
        ("teacher_accuracy", 40 - value),
      )
    }
    (folder / "metrics.json").write_text(json.dumps(scores))
  path = report.write_report([str(tmp_path)], str(tmp_path / "r.html"))
  source, text = _page(path)
  for expected in (
    "2 evaluations",
    "Evaluation: toy-test",
    "Evaluation: toy-validation",
    "50.0 [48.0, 53.0]",
    "Teacher, same examples 40.0",
    "Accuracy at the end",
  ):
    assert expected in text, expected
  assert "ci_low" not in source
  assert "teacher_" not in source


def test_long_run_makes_a_small_page_that_says_how_it_is_drawn(tmp_path):
  with open(tmp_path / "metrics.jsonl", "w") as file:
    for step in range(20_000):
      value = (step * 7919) % 1000 / 1000  # looks like noise
      line = {f"train/{n}": value for n in ("loss", "forward_kl", "odd")}
      file.write(json.dumps({"step": step, **line}) + "\n")
  path = report.write_report([str(tmp_path)], str(tmp_path / "r.html"))
  assert os.path.getsize(path) < 150_000
  assert "Curves of more than 400 points are drawn in 200" in _page(path)[1]


def test_page_can_be_read_without_seeing_it(page):
  text, _ = _page(page)
  assert '<html lang="en">' in text
  levels = [int(level) for level in re.findall(r"<h(\d)", text)]
  assert levels[0] == 1
  assert levels.count(1) == 1
  steps = [b - a for a, b in itertools.pairwise(levels)]
  assert max(steps) == 1  # no level is skipped on the way down
  assert all("aria-label" in svg for svg in re.findall(r"<svg role[^>]*", text))
  tables = re.findall(r"<table.*?</table>", text)
  assert tables
  for table in tables:
    assert "<caption" in table
    assert 'scope="col"' in table
    assert 'scope="row"' in table
  targets = set(re.findall(r'href="#(section-\d+)"', text))
  assert targets == set(re.findall(r'<h2 id="(section-\d+)"', text))
  assert len(targets) > 5


def test_page_of_one_bare_run_has_no_empty_section(tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n')
  _, text = _page(
    report.write_report([str(tmp_path)], str(tmp_path / "report.html"))
  )
  for title in ("Results", "What differs", "Predictions", "Configurations"):
    assert title not in text


def test_plots_are_written_as_png(runs):
  paths = report.write_plots([str(runs)], str(runs / "plots"))
  names = {os.path.basename(path) for path in paths}
  assert {"accuracy.png", "train_loss.png", "eval_toy_accuracy.png"} <= names
  assert all(os.path.getsize(path) > 1000 for path in paths)


def test_missing_directory_leaves_an_older_report_alone(runs):
  path = runs / "report.html"
  path.write_text("older")
  with pytest.raises(UserError, match="nowhere is not a directory"):
    report.write_report([str(runs), str(runs / "nowhere")], str(path))
  assert path.read_text() == "older"
