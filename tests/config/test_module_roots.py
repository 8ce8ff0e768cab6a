"""A gin file loads modules of gkd and of the user's folders, and no others."""

import sys

import pytest

from gkd.config import configuration
from gkd.config.command_records import TrainConfig
from gkd.types import UserError

DYNAMIC = "from __gin__ import dynamic_registration\n"


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      "import antigravity",
      "import antigravity: antigravity is neither",
    ),
    (
      "from xml import dom\nBATCH_SIZE = (1",
      "evil.gin: import xml.dom: x",
    ),
    (
      "import seqio.utils",
      "seqio.utils is neither of gkd nor of a",
    ),
    (
      "from gkd import files\nKEEP = @files.os.getcwd()",
      "posix is neither",
    ),
    (
      "from gkd.models import layers\nKEEP = @layers.ACTIVATIONS.pop()",
      "builtins is neither",
    ),
    (
      "from gkd import errors\nKEEP = @errors.listed.__call__()",
      "builtins is neither",
    ),
    ("from gkd import files\nfiles.os.getcwd.x = 1", "getcwd"),
    ("import no_such_module_of_ours", "No module named 'no_such_"),
  ],
)
def test_foreign_code_is_refused_before_it_runs(
  text, message, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  before = {*sys.modules}
  (tmp_path / "evil.gin").write_text(f"{DYNAMIC}{text}\n")
  (tmp_path / "mine.gin").write_text("include 'evil.gin'\n")
  for file in ("evil.gin", "mine.gin"):
    with pytest.raises(UserError, match=message):
      configuration.load(["test/sft.gin", file], ["MODEL_DIR=x"])
  assert not {"antigravity", "xml.dom", "seqio"} & ({*sys.modules} - before)


def test_a_flag_imports_nothing():
  name = "import antigravity\nx.y"
  with pytest.raises(UserError, match=r"expected --gin\.NAME=VALUE"):
    configuration.load(["test/sft.gin"], [f"{name}=3"])
  assert "antigravity" not in sys.modules


def test_modules_beside_the_file_and_in_the_working_folder_are_found(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(sys, "path", [*sys.path])
  (tmp_path / "here").mkdir()
  monkeypatch.chdir(tmp_path / "here")
  (tmp_path / "beside_the_file.py").write_text("def steps():\n  return 7\n")
  (tmp_path / "here" / "in_the_folder.py").write_text("def size(): return 3\n")
  # A namesake of an installed module does not hide it.
  (tmp_path / "here" / "orbax.py").write_text("raise SystemExit\n")
  (tmp_path / "own.gin").write_text(
    f"{DYNAMIC}import beside_the_file\nimport in_the_folder\n"
    "include 'test/sft.gin'\n"
    "TRAIN_STEPS = @beside_the_file.steps()\n"
    "BATCH_SIZE = @in_the_folder.size()\nMODEL_DIR = 'x'\n"
  )
  configuration.load([str(tmp_path / "own.gin")], [])
  built = configuration.build(TrainConfig)
  assert (built.train_steps, built.batch_size) == (7, 3)
