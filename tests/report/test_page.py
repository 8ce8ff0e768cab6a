"""One page that holds everything and breaks on nothing."""

import html.parser
import itertools
import json
import pathlib
import re

import pytest

from gkd.report import page
from gkd.report.read import read as read_runs
from tests.report.example_runs import ACCURACY
from tests.report.example_runs import KL
from tests.report.example_runs import write

_VOID = {"meta", "path", "use", "rect", "br", "wbr"}
INFOS = {
  "eval/toy/accuracy": ACCURACY,
  "eval/toy/teacher_accuracy": ACCURACY | {"role": "teacher"},
  "eval/toy/forward_kl": ACCURACY | KL,
}


class Balance(html.parser.HTMLParser):
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


def read(path):
  """Source and text of a page."""
  with open(path, encoding="utf-8") as file:
    source = file.read()
  parser = Balance()
  parser.feed(source)
  parser.close()
  assert parser.stack == []
  return source, " ".join(" ".join(parser.text).split())


def report(folder):
  return read(
    page.write_report(read_runs([str(folder)]), str(folder / "report.html"))
  )


def trained(directory, accuracy, *, prompt="2 + 3 = ?"):
  values = {
    "train/lambda": None,
    "train/odd": 1.0,
    "eval/toy/accuracy": accuracy,
    "eval/toy/teacher_accuracy": 90.0,
    "eval/toy/forward_kl": 1.0,
    "time/update_seconds": 2.0,
    "memory/peak_bytes": 1e6,
  }
  steps = (0, 1, 2, 4, 8, 20)
  lines = [{"step": n, "train/loss": 2.0 - n / 20, **values} for n in steps]
  about = {
    "settings": {"train_steps": 20, "rate": accuracy},
    "roles": {"teacher": {"content_sha256": "12" * 32}},
    "starts": [{"date": "2026-01-02 03:04:05", "command": "gkd train <x>"}],
  }
  write(directory, lines, infos=INFOS, about=about, config="A_MACRO = 1\n")
  is_right = accuracy > 50
  record = {
    "row": 0,
    "prompt": prompt,
    "reference": "5",
    "text": f"5 or {accuracy}",
    "prediction": "5" if is_right else "6",
    "truncated": is_right,
  }
  sample = {"row": 1, "source": "student", "prompt": prompt, "text": "sampled"}
  sample["token_log_probs"] = [["sam", -0.0], ["<pled>", -3.0], ["", None]]
  for name, line in (
    ("predictions/toy-test-00000020.jsonl", record),
    ("samples/step_00000020.jsonl", sample),
  ):
    (directory / name).parent.mkdir()
    (directory / name).write_text(json.dumps(line) + "\n")


def set_of_runs(folder):
  trained(folder / "sft", 20.0)
  trained(folder / "gkd", 60.5)
  content = {
    "rows": [
      {"method": "sft", "seed": 0, "greedy": 20.0, "t1": 10.0, "kl": 2.0},
      {"method": "gkd", "seed": 0, "greedy": 60.5, "t1": 50.0, "lambda": 1.0},
    ],
    "meta": {"title": "A <toy>", "hardware": "2 CPU cores", "seconds": 200},
    "columns": {
      "greedy": {"title": "greedy & so on", "unit": "%", "chart": "Scores"},
      "t1": {"title": "sampled", "unit": "%", "chart": "Scores"},
      "kl": {"title": "KL", "chart": "Distance"},
    },
    "labels": {"gkd": "<on-policy> GKD"},
  }
  (folder / "results.json").write_text(json.dumps(content))
  return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
  """Source and text of the page of `runs`, drawn once."""
  folder = set_of_runs(tmp_path_factory.mktemp("runs"))
  output = folder / "out" / "report.html"
  runs = read_runs([str(folder)])
  assert page.write_report(runs, str(output)) == str(output)
  return read(output)


def test_page_holds_results_curves_settings_and_texts(drawn):
  source, text = drawn
  assert source.startswith("<!DOCTYPE html>")
  for expected in (
    "A <toy>",
    "2 runs · 2 rows of results",
    "time 3 min 20 s",
    "<on-policy> GKD",
    "greedy & so on (%)",
    "forward KL (nats per sequence)",
    "Training loss",
    "Where the time went",
    "rate 60.5 20.0",
    "5 or 60.5 ✓ right (cut)",
    "5 or 20.0 ✗ wrong",
    "sam <pled> ▪",
    "1 more curves",
    "A_MACRO = 1",
    "2026-01-02 03:04:05: gkd train <x>",
    "<on-policy> GKD rate 60.5",
  ):
    assert expected in text, expected
  assert "λ as realised" not in text  # all values are null


def test_page_loads_nothing_from_outside(drawn):
  source, _ = drawn
  links = set(re.findall(r"https?://[^\"'\s]+", source))
  assert links <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
  assert source.count("<script>") == 1  # of the tables
  assert not re.search(
    r"<(script |link|img|iframe)\b|@import|url\((?!#)", source
  )


def test_page_can_be_read_without_seeing_it(drawn):
  source, _ = drawn
  assert '<html lang="en">' in source
  levels = [int(level) for level in re.findall(r"<h(\d)", source)]
  assert levels[0] == 1
  assert levels.count(1) == 1
  steps = [b - a for a, b in itertools.pairwise(levels)]
  assert max(steps) == 1  # no level is skipped on the way down
  assert all(
    "aria-label" in x for x in re.findall(r'<div role="img"[^>]*', source)
  )
  tables = re.findall(r"<table.*?</table>", source, flags=re.DOTALL)
  assert tables
  for table in tables:
    assert "<caption" in table
    assert 'scope="col"' in table
    assert 'scope="row"' in table
  targets = set(re.findall(r'href="#(section-\d+)"', source))
  assert targets == set(re.findall(r'<h2 id="(section-\d+)"', source))
  assert len(targets) > 5
  ids = re.findall(r'\bid="([^"]+)"', source)
  assert len(set(ids)) == len(ids)


def test_text_of_a_model_cannot_change_the_page(tmp_path):
  trained(tmp_path / "run", 1.0, prompt='<script>alert("&amp;")</script>')
  source, text = report(tmp_path)
  assert source.count("<script") == 1  # of the tables
  assert '<script>alert("&amp;")</script>' in text


def test_rows_on_which_runs_disagree_are_shown_first():
  first, second = (
    {row: {"prediction": p} for row, p in enumerate(predictions)}
    for predictions in ("aaaaaaaaaa", "aaaaaaaaba")
  )
  assert page.disagreements_first([first, second]) == [0, 1, 2, 3, 4, 8]


def test_page_says_which_runs_are_not_complete(tmp_path):
  runs = set_of_runs(tmp_path)
  with open(runs / "sft" / "metrics.jsonl", "a") as file:
    file.write('{"step": 30, "tr')
  (runs / "sft" / "run.json").write_text('{"settings": {"train_steps": 40}}')
  with open(runs / "gkd" / "metrics.jsonl", "a") as file:
    file.write('{"step": 21, "train/loss": null}\n')
  write(runs / "new", config="TRAIN_STEPS = 40\n")
  _, text = report(runs)
  for expected in (
    "sft reported 20 of 40 updates (50 %) so far: it was stopped",
    "sft the last line of metrics.jsonl is torn",
    "<on-policy> GKD stopped at update 21: loss, gradient or",
    "new has reported no numbers yet",
    "× marks where the next value was not finite.",
  ):
    assert expected in text, expected


def test_page_of_evaluations_has_a_table_and_bars_for_each_split(tmp_path):
  teacher = {"content_sha256": "12" * 32, "path": "/models/teacher"}
  for name, value in (("sft", 40.0), ("gkd", 50.0)):
    values, infos = {}, {}
    for split in ("test", "validation"):
      metric = f"eval/toy-{split}/accuracy"
      values |= {metric: value, f"{metric}_ci_low": 38.0}
      values |= {f"{metric}_ci_high": 53.0, f"teacher_{metric}": 80.0}
      infos[metric] = ACCURACY | {"split": split}
      infos[f"teacher_{metric}"] = infos[metric] | {"role": "teacher"}
    about = {"roles": {"teacher": teacher}}
    write(tmp_path / name, values=values, infos=infos, about=about)
  source, text = report(tmp_path)
  for expected in (
    "2 evaluations",
    "Evaluation: toy test",
    "Evaluation: toy validation",
    "50.0 [38.0, 53.0]",
    "Teacher, same examples 80.0",
    "Accuracy at the end",
  ):
    assert expected in text, expected
  assert "ci_low" not in source
  assert "teacher_" not in source


def test_page_of_one_bare_run_has_no_empty_section(tmp_path):
  write(tmp_path, [{"step": 1, "train/loss": 1.0}])
  _, text = report(tmp_path)
  for title in ("Results", "What differs", "Predictions", "Configurations"):
    assert title not in text


def test_a_seed_beside_the_first_has_only_the_lines_that_differ(tmp_path):
  for seed in (0, 1):
    about = {"settings": {"seed": seed}, "config": f'"\nSEED = {seed}\nR = 5'}
    lines = [{"step": 1, "train/loss": 1.0}]
    config = f"RANDOM_SEED = {seed}\nRATE = 5\n"
    write(tmp_path / str(seed) / "kd", lines, about=about, config=config)
  source, text = report(tmp_path)
  assert source.count("RATE = 5") == source.count("R = 5") == 1
  words = 'kd, seed 1 differs: RANDOM_SEED = 1 "seed": 1 SEED = 1'
  assert f"Lines in which {words}" in text


def test_page_of_many_arms_begins_with_turns_and_folds_the_rest(tmp_path):
  infos = {"eval/toy/kl": ACCURACY | KL}
  infos["eval/toy/far"] = ACCURACY | KL | {"compared_with": "oracle"}
  for n in range(7):
    lines = [{"step": s, "eval/toy/kl": 1, "eval/toy/far": s} for s in (1, 2)]
    about = {"settings": {"rate": n, "steps": 2}}
    write(tmp_path / f"r{n}", lines, infos=infos, about=about, config="A = 1\n")
  source, _ = report(tmp_path)
  titles = re.findall("<h2[^>]*>(.*?)</h2>", source)
  assert titles[:2] == ["Turns", "Evaluation: one distance against another"]
  _, folded = source.split("<details><summary>toy test", 1)
  assert "forward KL to the oracle (nats per sequence)" in folded
  assert "on a linear axis" not in source
  # The first run.json is whole.
  assert [source.count(f'"{name}":') for name in ("steps", "rate")] == [1, 7]


def test_plots_are_written_as_png(tmp_path):
  folder = set_of_runs(tmp_path)
  paths = page.write_plots(read_runs([str(folder)]), str(folder / "plots"))
  names = {pathlib.Path(path).name for path in paths}
  assert names >= {
    "scores.png",
    "train_loss.png",
    "eval_toy_test_accuracy.png",
  }
  for path in map(pathlib.Path, paths):
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.stat().st_size > 1000


def figures(source):
  """{title: (source, legend)}; a legend is {variable of a colour: item}."""
  found = {}
  for figure in re.findall("<figure>.*?</figure>", source, flags=re.DOTALL):
    items = figure.partition('<ul class="legend">')[2].split("</ul>")[0]
    legend = {
      re.search(r"var\(--(\w+)\)", item).group(1): item
      for item in items.split("<li>")[1:]
    }
    found[re.search("<h3>(.*?)</h3>", figure).group(1)] = figure, legend
  return found


def test_figure_of_bars_names_several_series_beside_their_colours(drawn):
  found = figures(drawn[0])
  _, legend = found["Scores"]
  assert legend.keys() == {"s0", "s1"}
  assert "greedy &amp; so on" in legend["s0"]
  # A single one is what the title says.
  assert found["Distance"][1] == {}


def test_figure_of_lines_names_the_teacher_and_says_where_lines_end(drawn):
  found = figures(drawn[0])
  source, legend = found["Accuracy"]
  assert legend.keys() == {"ink"}
  assert "stroke-dasharray: 6 3.75" in legend["ink"]
  # The log axis comes with a linear one.
  assert "<summary>on a linear axis of updates</summary>" in source
  label, _ = re.findall(r'<div role="img" aria-label="([^"]*)"', source)
  assert label.endswith(" Teacher, same examples: from 90 to 90, 0 to 20.")
  source, _ = found["Training loss"]
  label, _ = re.findall(r'<div role="img" aria-label="([^"]*)"', source)
  ends = "from 2 to 1, 0 to 20."
  assert label == (f"Training loss. &lt;on-policy&gt; GKD: {ends} sft: {ends}")


def test_interval_may_break_away_from_its_value_and_long_names_anywhere():
  found = page.cell_number("5.0 ± 1 [4.0, 6.0]")
  assert found == '5.0&nbsp;±&nbsp;1 <span class="range">[4.0, 6.0]</span>'
  found = page.breakable("gkd_on_policy-with-a-rather-long-<name>")
  assert found.startswith("gkd_<wbr>on_<wbr>policy-<wbr>with-<wbr>a")
  assert found.endswith("&lt;name&gt;")
  assert page.breakable("On-policy") == "On-policy"
