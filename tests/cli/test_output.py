"""Names that no disk can have, and readers that stop: one line or nothing."""

import subprocess
import sys
from unittest import mock

import pytest

from gkd.cli import main
from tests.cli.command_lines import arguments
from tests.cli.command_lines import error_of

LONG = ("x" * 256, "xxx: File name too long")
NOBODY = ("~no-such-user/x", "~NAME at the beginning of a path is of no user")
BYTES = ("\udcff", r"'\udcff' is not UTF-8; give another name or value")


@pytest.mark.parametrize(("name", "message"), [LONG, NOBODY, BYTES])
def test_names_that_no_path_can_have(name, message, tmp_path, capsys):
  message = message.replace("'", "")
  for command_line in (
    arguments("train", file="test/sft.gin", MODEL_DIR=name),
    ["convert", name, str(tmp_path / "out"), "--to=gkd"],
    ["report", str(tmp_path), "--output", name],
    ["cache", "list", "--cache_dir", name],
    ["quickstart", "--output", name],
  ):
    assert message in error_of(command_line, capsys).replace("'", "")


def test_a_link_to_nowhere_is_no_folder(tmp_path, capsys):
  (tmp_path / "loop").symlink_to(tmp_path / "loop")
  run = arguments(
    "train", file="test/sft.gin", MODEL_DIR=tmp_path / "loop" / "x"
  )
  assert "loop is a file; give a folder" in error_of(run, capsys)


@pytest.mark.parametrize(
  ("action", "flag"),
  [
    (["make"], "EVAL_CACHE"),
    (["make", "--split=test"], "EVAL_TASK"),
    (["vocabulary", "--size=9", "--output=x.model"], "VOCABULARY"),
  ],
)
def test_values_that_gkd_cache_does_not_read(action, flag, capsys):
  line = ["cache", *action, "--gin_file=tasks/gsm8k.gin", f"--gin.{flag}=/x"]
  assert f"--gin.{flag} has no effect" in error_of(line, capsys)


def test_quickstart_on_a_file(tmp_path, capsys):
  (tmp_path / "file").write_text("")
  line = error_of(["quickstart", f"--output={tmp_path / 'file'}"], capsys)
  assert "/file is a file; give a folder" in line


@pytest.mark.parametrize(
  ("arguments", "unbuffered"),
  [(["--help"], ""), (["cache", "list"], ""), (["cache", "list"], "1")],
)
def test_a_reader_that_stops_is_no_traceback(arguments, unbuffered, tmp_path):
  for name in "abc":
    (tmp_path / name / name).mkdir(parents=True)
  child = subprocess.Popen(
    [sys.executable, "-m", "gkd", *arguments],
    env={
      "GKD_CACHE_DIR": str(tmp_path),
      "PYTHONPATH": ":".join(sys.path),
      "PYTHONUNBUFFERED": unbuffered,
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  child.stdout.close()
  assert child.stderr.read() == b""
  assert child.wait() == 141


def test_the_pipe_of_another_process_is_no_reader_that_stops(monkeypatch):
  broken = mock.Mock(side_effect=BrokenPipeError("of a metric's process"))
  monkeypatch.setitem(main._COMMANDS, "list", broken)
  with pytest.raises(BrokenPipeError):
    main.main(["list", "tasks"])
