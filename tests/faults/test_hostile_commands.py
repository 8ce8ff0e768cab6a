"""A few command lines of `make hostile`, and that it sees what is wrong."""

import pytest

from gkd.cli import main as command
from tests.faults import hostile_commands
from tests.faults import hostile_lines

SEED = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("hostile")
  hostile_lines.make_files(folder)
  return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
  monkeypatch.chdir(folder)
  monkeypatch.setenv("GKD_CACHE_DIR", str(folder / "caches"))


def test_bad_command_lines_end_in_one_line(folder):
  lines = [hostile_lines.draw(SEED, number, folder) for number in range(30)]
  # One that gets so far imports TensorFlow.
  numbers = [n for n, (line, _) in enumerate(lines) if "cache" not in line]
  records = [hostile_commands.attempt(SEED, n, folder) for n in numbers]
  assert [r for r in records if r["fault"]] == []
  assert {r["exit_code"] for r in records} == {0, 2}


@pytest.mark.parametrize(
  ("result", "fault"),
  [
    (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    (lambda: 1, "exit code 1"),
    (lambda: 2, "no line says why"),
    (lambda: 0, "accepted"),
  ],
)
def test_a_command_that_ends_badly_is_seen(result, fault, folder, monkeypatch):
  cases = ((n, hostile_lines.draw(SEED, n, folder)[1]) for n in range(99))
  number = next(number for number, mistakes in cases if mistakes)
  monkeypatch.setattr(command, "main", lambda _: result())
  assert hostile_commands.attempt(SEED, number, folder)["fault"] == fault


def test_what_hangs_or_dies_is_seen_and_the_others_go_on(monkeypatch):
  monkeypatch.setattr(hostile_commands, "SECONDS", 0.5)
  monkeypatch.setattr(
    hostile_commands, "_COMMAND", ["-c", "import time; time.sleep(9)"]
  )
  records = hostile_commands.run(cases=2, seed=0)
  assert [record["fault"] for record in records] == ["hung", "hung"]
