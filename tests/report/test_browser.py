"""The page as a browser shows it: on a desk, on a phone, light and dark.

Skipped, and counted, where there is no Chromium.
"""

import pytest

from gkd.report import page as report
from tests.report import browser as browsers
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
      "eval/toy/forward_kl": 100 / quality,
    }
    for step in steps
  ]
  infos = {
    score: ACCURACY,
    "eval/toy/teacher_accuracy": ACCURACY | {"role": "teacher"},
    "eval/toy/forward_kl": ACCURACY | KL,
  }
  about = {"settings": {"a_setting_with_a_long_name": f"{'caches/' * 9}{name}"}}
  write(folder / name, lines, infos=infos, about=about)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs")
  powers = [0, *(2**n for n in range(11))]
  _run(folder, "sft", powers, 20.0)
  _run(folder, "gkd_on_policy_reverse_kl_temperature_0.1_warmup_2000", [1], 40)
  _run(folder, "anamewithoutanyplacewhereitmaybebrokenintoparts", powers, 30.0)
  write(folder / "sft" / "eval", values={"eval/toy/accuracy": 25.0})
  return report.write_report([str(folder)], str(folder / "report.html"))


@pytest.fixture(scope="module")
def browser():
  program = browsers.find()
  if program is None:
    pytest.skip("no browser: install chromium to see the page drawn")
  with browsers.Browser(program) as opened:
    yield opened


@pytest.mark.parametrize("width", [390, 1280])
def test_page_does_not_scroll_sideways(browser, page, width):
  browser.open(page, width)
  assert browser.measure("innerWidth") == width
  assert browser.measure("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [390, 1280])
def test_words_in_drawings_are_whole_and_apart(browser, page, width):
  browser.open(page, width)
  assert browser.measure("document.querySelectorAll('figure').length") > 5
  assert browser.measure(_CLASHES) == []


@pytest.mark.parametrize("width", [390, 1280])
def test_no_text_is_tiny(browser, page, width):
  browser.open(page, width)
  assert browser.measure(_SMALLEST_TEXT) >= 10


def test_dark_page_is_the_pages_own_and_so_are_its_drawings(browser, page):
  shown = {}
  for dark in (False, True):
    browser.open(page, 1280, dark)
    shown[dark] = browser.measure(_COLOURS)
  for ground, ink, drawn in shown.values():
    assert ink == drawn
    assert ground != ink
  assert shown[True][0] == "rgb(20, 22, 26)"
  assert shown[False][0] == "rgb(251, 251, 250)"


def test_names_of_runs_stay_in_sight_beside_the_curves(browser, page):
  browser.open(page, 390)
  browser.measure("document.querySelectorAll('figure')[1].scrollIntoView()")
  top, height = browser.measure(
    "(() => { const r = document.querySelector('.runs')"
    ".getBoundingClientRect(); return [r.top, r.height] })()"
  )
  assert top == 0
  assert height < 844 / 3  # and leave room for the curves
