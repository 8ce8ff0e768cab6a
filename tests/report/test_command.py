"""`gkd report`: its errors in one line each, and no model in sight."""

import errno
import os
import re

from matplotlib.figure import Figure
import pytest

from gkd.cli import main
from gkd.report import page
from tests import child
from tests.report.example_runs import write


@pytest.fixture
def run(tmp_path):
  lines = [{"step": step, "train/loss": 1.0 / step} for step in (1, 2)]
  return write(tmp_path / "run", lines)


def _error(capsys, *arguments):
  """The one line of a command that ends in a mistake of the user."""
  assert main.main(["report", *map(str, arguments)]) == 2
  out, err = capsys.readouterr()
  assert out == ""
  (line,) = err.splitlines()
  return line


def test_page_and_plots_are_where_they_were_asked_for(run, tmp_path, capsys):
  output, plots = tmp_path / "page.html", tmp_path / "plots"
  arguments = [str(run), f"--output={output}", f"--plots={plots}"]
  for _ in range(2):  # its own are replaced
    assert main.main(["report", *arguments]) == 0
    assert capsys.readouterr().out == (
      f"written to {output}\n1 plots in {plots}\n"
    )
  assert output.read_text("utf-8").startswith("<!DOCTYPE html>")
  assert os.listdir(plots) == ["train_loss.png"]


@pytest.mark.parametrize(
  ("directory", "flag", "path", "message"),
  [
    ("nowhere", "--output", "r.html", "nowhere is not a directory; expected"),
    ("torn", "--output", "r.html", "run.json is not JSON"),
    ("run", "--output", "no/r.html", "no; make it or give"),
    ("run", "--output", "empty", "empty' is a folder; give the name of a file"),
    ("run", "--output", "x" * 250, "File name too long; give a shorter name"),
    ("run", "--output", "torn/run.json", "is there and not what this command"),
    ("run", "--plots", "torn/run.json", "--plots '.*is a file; give a folder"),
    ("run", "--plots", "mine", "train_loss.png' is there and not what this"),
  ],
)
def test_mistakes_are_one_line_and_leave_no_page(
  run, tmp_path, capsys, monkeypatch, directory, flag, path, message
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "empty").mkdir()
  (tmp_path / "mine").mkdir()
  Figure().savefig(tmp_path / "mine" / "train_loss.png")
  (write(tmp_path / "torn") / "run.json").write_text('{"model": ')
  arguments = run, tmp_path / directory, f"{flag}={tmp_path / path}"
  assert re.search(message, _error(capsys, *arguments))
  assert not list(tmp_path.glob("*.html"))


def test_full_disk_leaves_the_older_page_as_it_was(
  run, tmp_path, capsys, monkeypatch
):
  output = tmp_path / "r.html"
  older = page.MARK.decode()
  output.write_text(older)

  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "fsync", full)
  line = _error(capsys, run, f"--output={output}")
  assert f"cannot write {output}: No space left on device; free some" in line
  assert output.read_text() == older
  assert sorted(os.listdir(tmp_path)) == ["r.html", "run"]


def test_report_is_made_where_jax_cannot_be_imported(run, tmp_path):
  absent = ["jax", "jaxlib", "flax", "orbax", "gin", "tensorflow", "seqio"]
  code = f"""
    import sys
    sys.modules |= dict.fromkeys({absent})
    from gkd.cli.main import main
    sys.exit(main(["report", *sys.argv[1:]]))
  """
  process = child.start(code, run, f"--output={tmp_path}/r.html")
  _, errors = process.communicate()
  assert (process.returncode, errors) == (0, "")
  assert (tmp_path / "r.html").exists()
