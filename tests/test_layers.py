"""Imports point downward, and heavy packages stay in their leaves.

The table is that of the README. Imports inside functions count as well.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "gkd"

# Longest matching prefix wins.
LAYERS = {
  "gkd": 0,
  "gkd.errors": 0,
  "gkd.ids": 0,
  "gkd.types": 0,
  "gkd.keys": 0,
  "gkd.masks": 0,
  "gkd.trees": 0,
  "gkd.metrics": 0,
  "gkd.files": 0,
  "gkd.bindings": 0,
  "gkd.progress": 1,
  "gkd.losses": 1,
  "gkd.models": 1,
  "gkd.text": 1,
  "gkd.sampling": 2,
  "gkd.training.state": 2,
  "gkd.training.learning_rates": 2,
  "gkd.training.optimizer": 2,
  "gkd.training.t5x_adafactor_state": 2,
  "gkd.partitioning": 2,
  "gkd.rewards": 2,
  "gkd.training": 3,
  "gkd.evaluation": 3,
  "gkd.checkpoints": 3,
  "gkd.data": 3,
  "gkd.tasks": 3,
  "gkd.training.run": 4,
  "gkd.training.resume_check": 4,
  "gkd.training.loop": 4,
  "gkd.__main__": 5,
  "gkd.cli": 5,
  "gkd.config": 5,
  "gkd.experiments": 5,
  "gkd.report": 5,
  "gkd.bench": 5,
  "gkd.plan": 5,
}
TOP = 5
TENSORFLOW = {"tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio"}
TORCH = {"torch", "transformers"}
# Who may import what the layers below the top may not.
LEAVES = {
  "gkd.tasks": TENSORFLOW,
  "gkd.data.builder.seqio_source": TENSORFLOW,
}
GIN = {"gkd.config.configuration", "gkd.config.gin_table"}
GROUND = {"jax", "numpy", "flax"}


def module_name(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(p for p in parts if p != "__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports(source: str, modules=MODULES) -> set[str]:
  """Absolute names of all modules that a source imports, at any depth."""
  found = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "imports are absolute"
      for alias in node.names:
        full = f"{node.module}.{alias.name}"
        found.add(full if full in modules else node.module)
  return found


def layer(module: str) -> int:
  while module not in LAYERS:
    module, _, rest = module.rpartition(".")
    assert rest, "not a module of gkd"
  return LAYERS[module]


def folder(module: str) -> str:
  """gkd.losses.chunked and gkd.losses.divergence share a folder."""
  return ".".join(module.split(".")[:2])


def violations(module: str, source: str) -> list[str]:
  """What is wrong with the imports of one module."""
  wrong = []
  own = layer(module)
  for name in sorted(imports(source)):
    top = name.partition(".")[0]
    if top == "gkd" and name != "gkd":
      other = layer(name)
      sideways = other == own and folder(name) != folder(module)
      if other > own or (sideways and own not in (0, TOP)):
        wrong.append(f"{module} (L{own}) imports {name} (L{other})")
    elif top == "gin" and module not in GIN:
      wrong.append(f"{module} imports gin")
    elif top in TENSORFLOW | TORCH and own < TOP and not allowed(module, top):
      wrong.append(f"{module} imports {top}")
    elif own == 0 and top not in GROUND | {"gkd"} | sys.stdlib_module_names:
      wrong.append(f"{module} (L0) imports {top}")
  return wrong


def allowed(module: str, package: str) -> bool:
  return any(
    package in packages
    for leaf, packages in LEAVES.items()
    if module == leaf or module.startswith(f"{leaf}.")
  )


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downward(module):
  assert violations(module, MODULES[module].read_text("utf-8")) == []


@pytest.mark.parametrize(
  ("module", "source"),
  [
    ("gkd.losses.divergence", "from gkd.sampling import sampler"),
    ("gkd.losses.divergence", "from gkd.models import t5"),
    ("gkd.training.step", "from gkd.training import loop"),
    ("gkd.training.loop", "from gkd.cli import main"),
    ("gkd.data.loader", "def f():\n  import tensorflow as tf"),
    ("gkd.data.loader", "import seqio.vocabularies"),
    ("gkd.models.t5", "import torch"),
    ("gkd.cli.main", "import gin"),
    ("gkd.masks", "import optax"),
  ],
)
def test_a_wrong_import_is_noticed(module, source):
  assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
  ("module", "source"),
  [
    ("gkd.tasks.arithmetic", "import seqio"),
    ("gkd.data.builder.seqio_source", "def f():\n  import seqio"),
    ("gkd.losses.objective", "from gkd.losses import divergence"),
    ("gkd.config.configuration", "from gin import config"),
  ],
)
def test_the_leaves_are_allowed(module, source):
  assert violations(module, source) == []


def test_report_reads_files_and_never_a_model():
  for module, path in MODULES.items():
    if module.startswith("gkd.report"):
      names = imports(path.read_text("utf-8"))
      own = {n for n in names if n.partition(".")[0] in ("gkd", "jax", "flax")}
      allowed_names = {n for n in own if n.startswith("gkd.report")}
      assert own - allowed_names <= {
        "gkd",
        "gkd.bindings",
        "gkd.errors",
        "gkd.files",
      }, module


def test_help_imports_neither_jax_nor_gin():
  code = (
    "import sys\n"
    "from gkd.cli.main import main\n"
    "try:\n"
    "  main(['--help'])\n"
    "except SystemExit:\n"
    "  pass\n"
    "assert not {'jax', 'gin', 'tensorflow'} & set(sys.modules)\n"
  )
  subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
