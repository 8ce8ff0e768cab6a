"""Help of every command: complete, fits a terminal, examples that load."""

import contextlib
import io
import re
import shlex

import pytest

from gkd.cli import bench_command
from gkd.cli import help_pages
from gkd.cli import main as command
from gkd.cli import parser
from gkd.config import command_records
from gkd.config import configuration
from gkd.config import records

RUNS = {
  "train": command_records.TrainConfig,
  "bench": command_records.TrainConfig,
  "plan": command_records.TrainConfig,
  "config": command_records.TrainConfig,
  "evaluate": command_records.EvaluateConfig,
  "sample": command_records.SampleConfig,
}


PAGES = list(help_pages.PAGES)


@pytest.fixture(scope="module")
def helps():
  """{command: what `gkd COMMAND --help` prints}, each with exit code 0."""
  texts = {}
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("COLUMNS", "80")
    for name in PAGES:
      out = io.StringIO()
      with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as end:
        command.main([*name.split(), "--help"])
      assert end.value.code == 0
      texts[name] = out.getvalue()
  return texts


def examples(text: str) -> list[list[str]]:
  """Arguments of each `gkd …` of a page's example."""
  lines = text.partition("\nexample:\n")[2].replace("\\\n", " ").splitlines()
  return [shlex.split(line)[1:] for line in lines]


def test_every_command_has_a_page():
  assert sorted(["", *parser._FLAGS]) == sorted(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_answers_what_a_newcomer_asks(name, helps):
  text = helps[name]
  assert text.startswith(f"usage: gkd {name}".rstrip())
  parts = ["\nexit code:\n", "\nexample:\n  gkd ", "write"]
  if name:
    parts += ["reads", help_pages.PAGES[name].partition("\n")[0][1:] + "."]
  if name and name not in ("cache list", "cache check", "list"):
    parts += ["\nresume:\n"]
  for part in parts:
    assert part in text, part
  if name in RUNS:
    usage = "--gin_file=FILE … [--gin.NAME=VALUE …] [options]"
    assert text.startswith(f"usage: gkd {name} {usage}")
  if "--gin_file FILE" in text:
    assert "--gin.NAME=VALUE" in text
    assert "\nknobs:\n" in text
    assert re.search(r"knobs:\n(  .*\n)*.*(headers? of|gkd train --help)", text)


def test_a_flag_says_what_it_takes_and_what_holds_without_it():
  for flags in parser._FLAGS.values():
    for flag, arguments in flags:
      text = arguments["help"]
      assert ("may be repeated" in text) == ("append" in arguments.values())
      assert "(default: " in text or not arguments.get("default"), flag


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_80_columns(name, helps):
  assert [line for line in helps[name].splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", PAGES)
def test_examples_are_calls_that_load(name, helps):
  calls = examples(helps[name])
  assert calls
  if name:
    called = [arguments[: len(name.split())] for arguments in calls]
    assert name.split() in called or name == "cache"
  for arguments in calls:
    args = command.parse(arguments)
    if args.command == "bench" and args.size is not None:
      bench_command.check_flags(args)
    elif args.command == "cache" and hasattr(args, "gin_file"):
      configuration.load(["runs/data.gin", *args.gin_file], args.bindings)
      configuration.build(records.DataConfig, scope="train")
    elif hasattr(args, "gin_file"):
      configuration.load(args.gin_file, args.bindings)
      configuration.build(RUNS[args.command])


@pytest.mark.parametrize("name", RUNS)
def test_knobs_are_macros_that_the_command_knows(name):
  """A knob that was renamed in the gin files must be renamed here too."""
  folder = configuration.config_folder()
  text = "".join(f.read_text("utf-8") for f in (folder / "runs").glob("*.gin"))
  text += (folder / "models" / "t5.gin").read_text("utf-8")
  knobs = help_pages.PAGES[name].partition("\nknobs:\n")[2]
  words = {w.strip(",.;()") for w in knobs.partition("\nresume:\n")[0].split()}
  macros = {word for word in words if word.isupper() and len(word) > 2}
  assert macros
  assert {name for name in macros if f"%{name}" not in text} == set()
