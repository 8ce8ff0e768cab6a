"""Files as a killed or a full machine leaves them."""

import pytest

from gkd.errors import UserError
from gkd.report import reading


def test_torn_last_line_and_damaged_lines_are_left_out_and_counted(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\nnot json\n[1]\n\n{"step": 2}\n{"step": 3, "a')
  lines = reading.json_lines(str(path))
  assert lines.objects == [{"step": 1}, {"step": 2}]
  assert (lines.torn, lines.damaged) == (True, 2)


def test_whole_last_line_without_an_end_counts(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n{"step": 2}')
  assert reading.json_lines(str(path)) == ([{"step": 1}, {"step": 2}], False, 0)


def test_file_that_is_not_there_is_empty(tmp_path):
  path = str(tmp_path / "nothing")
  assert reading.text(path) == ""
  assert reading.json_lines(path) == ([], False, 0)
  assert reading.json_object(path) is None
  assert reading.names_in(path) == []


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ('{"a": 1', r"run.json cannot be read as JSON \(.*make it again"),
    ("", r"run.json cannot be read as JSON"),
    ("[1]", r"expected an object in braces, found list; make it again"),
  ],
)
def test_damaged_object_is_refused(tmp_path, text, message):
  path = tmp_path / "run.json"
  path.write_text(text)
  with pytest.raises(UserError, match=message):
    reading.json_object(str(path))


def test_what_cannot_be_opened_is_refused(tmp_path):
  path = tmp_path / "config.gin"
  path.mkdir()
  with pytest.raises(UserError, match=r"config.gin cannot be read \(Is a dir"):
    reading.text(str(path))
