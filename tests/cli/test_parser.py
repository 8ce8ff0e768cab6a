"""What argparse is told, and what a misspelt word gets for an answer."""

import pytest

from gkd.cli import main as command
from gkd.cli import parser
from gkd.config import configuration
from gkd.models import registry
from gkd.models import sizes
from tests.cli.command_lines import error_of


@pytest.mark.parametrize(
  ("arguments", "ending"),
  [
    (["trian"], "did you mean train?"),
    (["sft"], "did you mean train --gin_file=runs/sft.gin?"),
    (["distill", "x"], "did you mean train --gin_file=runs/distill.gin?"),
    (["train", "--step=7"], "a flag of gkd convert, see gkd train --help"),
    (
      ["list", "tasks", "--data_dir=x"],
      "a flag of gkd train, see gkd list --help",
    ),
    (["sourc"], "see gkd --help"),  # of `convert SRC`
    (["cache", "lsit"], "did you mean list?"),
    (["list", "modles"], "did you mean models?"),
    (
      ["list"],
      "one of tasks, models, methods, divergences, rewards; see gkd list"
      " --help",
    ),
    (["train", "--gin_fiel=x"], "mean --gin_file? see gkd train --help"),
    (["train", "--batch_size=8"], "NAME=VALUE, see gkd train --help"),
    (
      ["train", "--gin_file", "a.gin", "b.gin"],
      "again for b.gin, see gkd train --help",
    ),
    (["cache", "make", "AB=1"], "mean --gin.AB=1? see gkd cache make --help"),
    (
      ["train", "--MODEL_DIR=a/b"],
      "mean --gin.MODEL_DIR=a/b? see gkd train --help",
    ),
    (
      ["train", "--MODEL_DIR", "a"],
      "mean --gin.MODEL_DIR=a? see gkd train --help",
    ),
    (["train", "--gin.X=", "16"], "NAME=VALUE, see gkd train --help"),
    (["convert", "a"], "--to is one of gkd, t5x, hf; see gkd convert --help"),
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


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--gin.BATCH_SIZE", "16"], "no value; write --gin.BATCH_SIZE=16"),
    (["--gin.BATCH_SIZE", "=", "16"], "write --gin.BATCH_SIZE=VALUE"),
    (["--data_dir=daten"], "--data_dir 'daten' does not exist"),
    ([], "GKD_DATA_DIR 'nowhere' does not exist"),
  ],
)
def test_what_has_no_value_or_is_not_there(flags, message, capsys, monkeypatch):
  monkeypatch.setenv("GKD_DATA_DIR", "nowhere")
  line = error_of(["train", "--gin_file=test/sft.gin", *flags], capsys)
  assert message in line


def test_paths_are_what_a_shell_completes():
  (subparsers,) = parser.build()._subparsers._group_actions
  actions = subparsers.choices["convert"]._actions
  paths = {action.dest for action in actions if hasattr(action, "complete")}
  assert paths == {"source", "destination", "tokenizer"}


@pytest.mark.parametrize(
  "kind", ["tasks", "methods", "divergences", "rewards", "models"]
)
def test_lists_are_complete(kind, capsys):
  assert command.main(["list", kind]) == 0
  lines = capsys.readouterr().out.splitlines()
  folder = configuration.config_folder()
  files = [path for path in folder.rglob("*") if path.parent.name == kind]
  families = registry.with_sizes()
  count = len(sizes.NAMES) + len(families) if kind == "models" else 0
  assert len(lines) == (count or len([f for f in files if f.suffix == ".gin"]))
  names = [line.split()[0] for line in lines]
  assert all((folder / name).is_file() for name in names) or kind == "models"
  assert all(len(line.split()) > 1 for line in lines)
  assert all(line.endswith(".") for line in lines) or kind == "models"
  last = f"{{'family': '{[*families][-1]}"
  assert lines[-1].startswith(last) or kind != "models"


def test_the_effective_configuration_is_one_that_can_be_given(capsys, tmp_path):
  flags = ["--gin.MODEL_DIR=run", "--gin.BATCH_SIZE=7", "--verbose"]
  flags += ["--through_seqio", "--data_dir=.", "--cache_dir=caches"]
  assert command.main(["config", "--gin_file=test/sft.gin", *flags]) == 0
  text = capsys.readouterr().out
  assert "BATCH_SIZE = 7\n" in text
  (tmp_path / "kept.gin").write_text(text)
  assert command.main(["config", f"--gin_file={tmp_path / 'kept.gin'}"]) == 0
  assert capsys.readouterr().out == text
  for name in ("evaluate", "sample"):
    line = error_of(["config", f"--gin_file=test/{name}.gin"], capsys)
    assert "no value for" in line
