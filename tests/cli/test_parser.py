"""What argparse is told, and what a misspelt word gets for an answer."""

import pytest

from gkd.cli import main as command
from gkd.cli import parser
from gkd.config import configuration
from gkd.models import sizes
from tests.cli.command_lines import error_of


@pytest.mark.parametrize(
  ("arguments", "ending"),
  [
    (["trian"], "did you mean train?"),
    (["sft"], "did you mean train --gin_file=runs/sft.gin?"),
    (["distill", "x"], "did you mean train --gin_file=runs/distill.gin?"),
    (
      ["train", "--step=7"],
      "a flag of another command, see gkd COMMAND --help",
    ),
    (["cache", "lsit"], "did you mean list?"),
    (["list", "modles"], "did you mean models?"),
    (["train", "--gin_fiel=x"], "did you mean --gin_file?"),
    (["train", "--batch_size=8"], "NAME=VALUE, see gkd COMMAND --help"),
    (["convert", "a", "b", "--to=onnx"], "; see gkd convert --help"),
    (["a\nb"], "; see gkd --help"),
  ],
)
def test_a_misspelt_word_is_one_line_with_the_nearest(
  arguments, ending, capsys
):
  with pytest.raises(SystemExit) as end:
    command.main(arguments)
  assert end.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.endswith(ending)


def test_paths_are_what_a_shell_completes():
  (subparsers,) = parser.build()._subparsers._group_actions
  actions = subparsers.choices["convert"]._actions
  paths = {action.dest for action in actions if hasattr(action, "complete")}
  assert paths == {"source", "destination", "tokenizer"}


@pytest.mark.parametrize("kind", ["tasks", "methods", "divergences", "models"])
def test_lists_are_complete(kind, capsys):
  assert command.main(["list", kind]) == 0
  lines = capsys.readouterr().out.splitlines()
  folder = configuration.config_folder()
  files = [path for path in folder.rglob("*") if path.parent.name == kind]
  count = len(sizes.NAMES) if kind == "models" else 0
  assert len(lines) == (count or len([f for f in files if f.suffix == ".gin"]))
  names = [line.split()[0] for line in lines]
  assert all((folder / name).is_file() for name in names) or kind == "models"
  assert all(len(line.split()) > 1 for line in lines)


def test_the_effective_configuration_is_one_that_can_be_given(capsys, tmp_path):
  flags = ["--gin.MODEL_DIR=run", "--gin.BATCH_SIZE=7"]
  assert command.main(["config", "--gin_file=test/sft.gin", *flags]) == 0
  text = capsys.readouterr().out
  assert "BATCH_SIZE = 7\n" in text
  (tmp_path / "kept.gin").write_text(text)
  assert command.main(["config", f"--gin_file={tmp_path / 'kept.gin'}"]) == 0
  assert capsys.readouterr().out == text
  for name in ("evaluate", "sample"):
    line = error_of(["config", f"--gin_file=test/{name}.gin"], capsys)
    assert "no value for" in line
