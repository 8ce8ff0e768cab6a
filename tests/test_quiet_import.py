"""What a module writes on stderr while it is imported is not seen."""

import importlib
import sys

import pytest

from gkd.quiet_import import QuietImport

NOISY = "import os\nos.write(2, b'banner')\n"


@pytest.mark.parametrize("named", ["noisy", "another"])
def test_only_the_named_module_is_silent(tmp_path, monkeypatch, capfd, named):
  (tmp_path / "noisy.py").write_text(NOISY)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(sys.modules, "noisy", raising=False)
  monkeypatch.setattr(sys, "meta_path", [QuietImport(named), *sys.meta_path])
  importlib.import_module("noisy")
  print("later", file=sys.stderr)
  assert capfd.readouterr().err == "banner" * (named != "noisy") + "later\n"


def test_a_module_that_fails_leaves_stderr_as_it_was(
  tmp_path, monkeypatch, capfd
):
  (tmp_path / "failing.py").write_text(NOISY + "raise ImportError('why')\n")
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(
    sys, "meta_path", [QuietImport("failing"), *sys.meta_path]
  )
  with pytest.raises(ImportError, match="why"):
    importlib.import_module("failing")
  with pytest.raises(ImportError, match="No module named 'missing'"):
    importlib.import_module("missing")
  print("later", file=sys.stderr)
  assert capfd.readouterr().err == "later\n"
