"""A click on a title sorts a table: sort.js in node, on a table of texts."""

import json
import pathlib
import shutil
import subprocess

import pytest

from gkd.report import page

SCRIPT = pathlib.Path(page.__file__).with_name("sort.js").read_text("utf-8")
# As much of a document as the script uses.
DOCUMENT = """
const element = (text) => ({
  textContent: text, childNodes: [], attributes: {},
  append(...nodes) { this.children = nodes; },
  getAttribute(name) { return this.attributes[name] ?? null; },
  setAttribute(name, value) { this.attributes[name] = value; },
  removeAttribute(name) { delete this.attributes[name]; },
});
const [header, rows, clicks] = JSON.parse(process.argv[1]);
const body = {
  rows: rows.map((texts) => ({ cells: texts.map(element) })),
  append(...rows) { this.rows = rows; },
};
const table = { tBodies: [body] };
const head = { cells: header.map(element), closest: () => table };
const document = {
  querySelectorAll: () => [head], createElement: () => element(""),
};
"""
CLICK = """
for (const column of clicks) head.cells[column].children[0].onclick();
console.log(JSON.stringify(body.rows.map((row) => row.cells[0].textContent)));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="no node to run sort.js")
@pytest.mark.parametrize(
  ("clicks", "order"),
  [
    ([0], "abcd"),
    ([0, 0], "dcba"),
    ([1], "bdac"),
    ([1, 1], "adbc"),
    ([2], "adbc"),
    ([0, 2], "adbc"),
  ],
)
def test_rows_are_sorted_by_text_number_or_time(clicks, order):
  rows = [
    ["b", "1,072.4 ± 4.8", "12 s"],
    ["a", "9.5 [9, 10]", "2 h 5 min"],
    ["d", "63", "3 min 20 s"],
    ["c", "–", "–"],
  ]
  table = json.dumps([["run", "score", "time"], rows, clicks])
  done = subprocess.run(
    ["node", "-e", DOCUMENT + SCRIPT + CLICK, table],
    capture_output=True,
    text=True,
    check=True,
  )
  assert "".join(json.loads(done.stdout)) == order
