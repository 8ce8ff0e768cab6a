"""The page as a browser shows it: on a desk, on a phone, light and dark.

Skipped, and counted, where there is no Chromium.
"""

import functools

import pytest

from gkd.report import page as report
from gkd.report.read import read as read_runs
from tests.report import browser
from tests.report.example_runs import ACCURACY
from tests.report.example_runs import KL
from tests.report.example_runs import write

# Of all figures: words outside of the drawing, or upon other words.
_CLASHES = """(() => {
  document.querySelectorAll('details').forEach(d => d.open = true);
  const found = [];
  for (const svg of document.querySelectorAll('figure [role=img] svg')) {
    const box = svg.getBoundingClientRect();
    const words = [...svg.querySelectorAll('text')]
      .map(t => [t.getBoundingClientRect(), t.textContent]);
    for (const [i, [a, text]] of words.entries()) {
      if (a.left < box.left - 1 || a.right > box.right + 1
          || a.top < box.top - 1 || a.bottom > box.bottom + 1)
        found.push(text + ' is outside');
      for (const [b, other] of words.slice(i + 1))
        if (a.left < b.right - 1 && b.left < a.right - 1
            && a.top < b.bottom - 2 && b.top < a.bottom - 2)
          found.push(text + ' is upon ' + other);
    }
  }
  return found; })()"""
# In CSS pixels, those of drawings as they are scaled.
_SMALLEST_TEXT = """(() => {
  document.querySelectorAll('details').forEach(d => d.open = true);
  const shown = [...document.querySelectorAll('main *')].filter(
    e => e.getClientRects().length && !e.closest('.unseen') &&
    [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()));
  return Math.min(...shown.map(e => {
    const svg = e.closest('svg');
    const scale = svg ? svg.clientWidth / svg.viewBox.baseVal.width : 1;
    return parseFloat(getComputedStyle(e).fontSize) * scale; })); })()"""
_COLOURS = """(() => {
  const svg = document.querySelector('figure [role=img] svg');
  const of = (e, name) => getComputedStyle(e)[name];
  return [of(document.body, 'backgroundColor'), of(document.body, 'color'),
          of(svg.querySelector('text'), 'fill')]; })()"""

# The first cells of a table after clicks on titles, for each list of clicks.
_SORTED = """(() => {
  const row = cells => `<tr><td>${cells.join('<td>')}`;
  const table = document.body.appendChild(document.createElement('table'));
  return CLICKS.map(clicks => {
    table.innerHTML = `<thead>${row(['run', 'score', 'time'])}<tbody>` +
      [['b', '1,072.4 ± 4.8', '12 s'], ['a', '9.5 [9, 10]', '2 h 5 min'],
       ['d', '63', '3 min 20 s'], ['c', '–', '–']].map(row).join('');
    eval([...document.scripts].at(-1).textContent);
    for (const column of clicks)
      table.querySelectorAll('button')[column].click();
    return [...table.tBodies[0].rows].map(r => r.cells[0].textContent).join('');
  }); })()"""


def _run(folder, name, steps, quality):
  score = "eval/toy/accuracy"
  lines = [
    {
      "step": step,
      "train/loss": 10_000.0 / (step + 1),
      "train/lambda": 0.123456,
      "train/learning_rate": 3e-5,
      "time/update_seconds": 1.0,
      score: quality,
      f"{score}_ci_low": quality - 5,
      f"{score}_ci_high": quality + 5,
      "eval/toy/teacher_accuracy": 90.0,
      "eval/toy/forward_kl": 100 / quality / (step + 1),
      "eval/toy/forward_kl_to_oracle": quality + step,
    }
    for step in steps
  ]
  infos = {
    score: ACCURACY,
    "eval/toy/teacher_accuracy": ACCURACY | {"role": "teacher"},
    "eval/toy/forward_kl": ACCURACY | KL,
    "eval/toy/forward_kl_to_oracle": ACCURACY
    | KL
    | {"compared_with": "oracle"},
  }
  settings = {"a_setting_with_a_long_name": f"{'caches/' * 9}{name}"}
  settings["data"] = {"batch_size": 8}
  about = {"settings": settings, "num_rows": 300}
  write(folder / name, lines, infos=infos, about=about)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs")
  powers = [0, *(2**n for n in range(11))]
  _run(folder, "sft", powers, 20.0)
  _run(folder, "gkd_on_policy_reverse_kl_temperature_0.1_warmup_2000", [1], 40)
  _run(folder, "anamewithoutanyplacewhereitmaybebrokenintoparts", powers, 30.0)
  write(folder / "sft" / "eval", values={"eval/toy/accuracy": 25.0})
  return report.write_report(
    read_runs([str(folder)]), str(folder / "report.html")
  )


@pytest.fixture(scope="module")
def look(page):
  """Measures a JavaScript expression on the page."""
  program = browser.find()
  if program is None:
    pytest.skip("no browser: install chromium to see the page drawn")
  return functools.partial(browser.measure, program, page)


@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_and_its_words_are_whole_apart_and_not_tiny(look, width):
  fits = "[innerWidth, document.documentElement.scrollWidth]"
  count = "document.querySelectorAll('figure').length"
  found = look(width, f"[{fits}, {count}, {_CLASHES}, {_SMALLEST_TEXT}]")
  sizes, num_figures, clashes, smallest = found
  assert sizes == [width, width]  # it does not scroll sideways
  assert num_figures > 5
  assert clashes == []
  assert smallest >= 10


def test_dark_page_is_the_pages_own_and_so_are_its_drawings(look):
  grounds = []
  for dark in (False, True):
    ground, ink, drawn = look(1280, _COLOURS, dark)
    assert ink == drawn
    assert ground != ink
    grounds.append(ground)
  assert grounds == ["rgb(251, 251, 250)", "rgb(20, 22, 26)"]


def test_names_of_runs_stay_in_sight_beside_the_curves(look):
  top, height = look(
    390,
    "(() => { document.querySelectorAll('figure')[1].scrollIntoView();"
    " const r = document.querySelector('.runs').getBoundingClientRect();"
    " return [r.top, r.height] })()",
  )
  assert top == 0
  assert height < 844 / 3  # and leave room for the curves


def test_a_click_sorts_a_table_by_text_number_or_time(look):
  orders = {
    "[0]": "abcd",
    "[0, 0]": "dcba",
    "[1]": "bdac",
    "[1, 1]": "adbc",
    "[2]": "adbc",
    "[0, 2]": "adbc",
  }
  clicks = f"[{', '.join(orders)}]"
  found = look(1280, _SORTED.replace("CLICKS", clicks))
  assert found == list(orders.values())
