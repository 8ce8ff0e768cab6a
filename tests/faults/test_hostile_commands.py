"""A few command lines of `make hostile`, and that it sees what is wrong."""

import pytest

from gkd import locks
from gkd.cli import main as command
from tests.faults import hostile
from tests.faults import hostile_commands
from tests.faults import hostile_lines

SEED = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("hostile")
  hostile_lines.make_files(folder)
  with locks.hold(folder / "held" / ".lock", "it"):
    yield folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
  monkeypatch.chdir(folder)
  monkeypatch.setenv("GKD_CACHE_DIR", str(folder / "caches"))


def test_bad_command_lines_end_in_one_line(folder):
  cases = [f"{SEED}:{number}" for number in range(30)]
  lines = {case: hostile_lines.draw(case, folder)[0] for case in cases}
  # One that gets so far imports TensorFlow.
  records = [
    hostile_commands.attempt(case, folder)
    for case, line in lines.items()
    if "cache" not in line
  ]
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
  cases = [f"{SEED}:{number}" for number in range(99)]
  case = next(c for c in cases if hostile_lines.draw(c, folder)[1])
  monkeypatch.setattr(command, "main", lambda _: result())
  assert hostile_commands.attempt(case, folder)["fault"] == fault


@pytest.mark.parametrize(
  ("code", "fault"), [("time.sleep(60)", "hung"), ("1 / 0", "the process died")]
)
def test_what_hangs_or_dies_is_seen_and_the_others_go_on(
  code, fault, monkeypatch
):
  answers = "print('ready'); print('{\"fault\": \"\"}', flush=True)"
  half = ["-c", f"import time; {answers}; {code}"]
  monkeypatch.setattr(hostile, "_PATIENCE", 3)
  records = hostile.run(half, list("abc"), "", lambda _: {}, workers=1)
  wanted = [{"fault": ""}, {"case": "b", "fault": fault}, {"fault": ""}]
  assert records == wanted
