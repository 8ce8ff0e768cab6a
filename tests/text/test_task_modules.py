"""A module of tasks that is not one is said in one line."""

import importlib
import sys

import pytest

from gkd.text import task_modules
from gkd.types import UserError


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
  task_modules.register("good_tasks", "data", 3)
  assert sys.modules["good_tasks"].calls == [("data", 3)]


@pytest.mark.parametrize("name", ["", None, "my/tasks", ".tasks", "my tasks"])
def test_what_is_no_name(name):
  with pytest.raises(UserError, match=r"TASK_MODULE is .*expected the dotted"):
    task_modules.register(name, None, None)


def test_a_module_that_is_missing(folder):
  message = r"TASK_MODULE 'no_such.tasks' cannot be imported \(No module named"
  with pytest.raises(UserError, match=message + ".*correct the name"):
    task_modules.register("no_such.tasks", None, None)


def test_a_module_that_misses_another(folder):
  (folder / "needy_tasks.py").write_text("import no_such_package\n")
  with pytest.raises(UserError, match=r"'needy_tasks' .*'no_such_package'"):
    task_modules.register("needy_tasks", None, None)


def test_a_module_without_register(folder):
  (folder / "bare_tasks.py").write_text("")
  with pytest.raises(UserError, match=r"'bare_tasks' .* has no register\("):
    task_modules.register("bare_tasks", None, None)


def test_a_bug_in_a_module_keeps_its_traceback(folder):
  (folder / "buggy_tasks.py").write_text(
    "def register(data_dir, vocabulary):\n  import no_such_package\n"
  )
  with pytest.raises(ModuleNotFoundError):
    task_modules.register("buggy_tasks", None, None)
