"""A module of tasks that is not one is said in one line."""

import importlib
import sys

import pytest

from gkd.text import task_modules
from gkd.types import UserError

NO_NAMES = ("", None, "my/tasks", ".tasks", "my tasks")


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(tmp_path))
  before = set(sys.modules)
  importlib.invalidate_caches()
  yield tmp_path
  for name in set(sys.modules) - before:
    del sys.modules[name]


def test_register_is_called(folder):
  (folder / "good_tasks.py").write_text(
    "calls = []\n"
    "def register(data_dir, vocabulary):\n"
    "  calls.append((data_dir, vocabulary))\n"
  )
  assert task_modules.takes_vocabulary("good_tasks")
  task_modules.register("good_tasks", "data", 3)
  assert sys.modules["good_tasks"].calls == [("data", 3)]


def test_a_module_may_register_as_it_is_imported(folder):
  (folder / "plain_tasks.py").write_text("")
  task_modules.register("plain_tasks", "data", None)
  assert not task_modules.takes_vocabulary("plain_tasks")


@pytest.mark.parametrize(
  ("name", "code", "message"),
  [
    *[
      (name, None, "TASK_MODULE is .*expected the dotted") for name in NO_NAMES
    ],
    (
      "no_such.tasks",
      None,
      r"cannot be imported \(No module named.*correct the",
    ),
    ("needy_tasks", "import no_package", r"'needy_tasks' .*'no_package'"),
    ("capitals", None, r"is a folder .*/capitals, but no capitals\.py; put"),
  ],
)
def test_what_is_no_module_of_tasks_is_one_line(folder, name, code, message):
  (folder / "capitals").mkdir()
  if code is not None:
    (folder / f"{name}.py").write_text(code)
  with pytest.raises(UserError, match=message):
    task_modules.register(name, None, None)


def test_a_bug_in_a_module_keeps_its_traceback(folder):
  (folder / "buggy_tasks.py").write_text(
    "def register(data_dir, vocabulary):\n  import no_such_package\n"
  )
  with pytest.raises(ModuleNotFoundError):
    task_modules.register("buggy_tasks", None, None)
