"""Imports point downward without cycles; files and functions stay small.

Imports inside functions count as well.
"""

import ast
import collections
import graphlib
import pathlib
import sys

import pytest

from tests import child

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "gkd"

# Longest matching prefix wins.
LAYERS = {
  "gkd": 0,
  "gkd.progress": 1,
  "gkd.losses": 1,
  "gkd.models": 1,
  "gkd.text": 1,
  "gkd.sampling": 2,
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
  "gkd.training.run_description": 4,
  "gkd.training.sample_logging": 4,
  "gkd.training.starting_point": 4,
  "gkd.training.loop": 4,
  "gkd.api": 5,
  "gkd.config": 5,
  "gkd.plan": 6,
  "gkd.report": 5,
  "gkd.cli": 6,
  "gkd.__main__": 6,
  "gkd.experiments": 6,
}
TOP = 6
TENSORFLOW = {"tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio"}
HEAVY = TENSORFLOW | {"torch", "transformers"}
# Who may import what no other module below the command line may.
LEAVES = {
  "gkd.tasks": TENSORFLOW,
  "gkd.data.builder.seqio_source": TENSORFLOW,
}
GIN = {"gkd.config.configuration", "gkd.config.gin_table"}
GROUND = {"jax", "numpy", "flax", "gkd"} | sys.stdlib_module_names
# What the report may import; it reads files and never a model, and fits with
# NumPy alone.
REPORT = {"gkd", "gkd.disk_errors", "gkd.errors", "gkd.files"}
REPORT |= {"gkd.metric_fields", "gkd.training", "gkd.training.departure"}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
LONG_FUNCTIONS = {"gkd.training.loop.train": 150}
LONG_FILES = {"gkd.cli.help_pages": 450}  # text
# Recorded by name in caches on disk and in users' tasks.
SHARED_NAMES = {"metrics"}


def module_name(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(p for p in parts if p != "__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}
SOURCES = {name: path.read_text("utf-8") for name, path in MODULES.items()}


def imports(source: str) -> set[str]:
  """Absolute names of all modules that a source imports, at any depth."""
  found = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "imports are absolute"
      for alias in node.names:
        full = f"{node.module}.{alias.name}"
        found.add(full if full in MODULES else node.module)
  return found


IMPORTS = {name: imports(source) for name, source in SOURCES.items()}


def prefix_value(table, module: str, default=None):
  """Value of the longest prefix of a module's name in a table."""
  while module and module not in table:
    module = module.rpartition(".")[0]
  return table.get(module, default)


def folder(module: str) -> str:
  """gkd.losses.chunked and gkd.losses.divergence share a folder."""
  return ".".join(module.split(".")[:2])


def violations(module: str, imported: set[str]) -> list[str]:
  """What is wrong with the imports of one module."""
  wrong = []
  own = prefix_value(LAYERS, module)
  for name in sorted(imported):
    top = name.partition(".")[0]
    if top == "gkd" and name != "gkd":
      other = prefix_value(LAYERS, name)
      sideways = other == own and folder(name) != folder(module)
      if other > own or (sideways and own not in (0, TOP)):
        wrong.append(f"{module} (L{own}) imports {name} (L{other})")
    elif top == "gin" and module not in GIN:
      wrong.append(f"{module} imports gin")
    elif top in HEAVY and own < TOP:
      allowed = top in prefix_value(LEAVES, module, ())
      wrong += [] if allowed else [f"{module} imports {top}"]
    elif own == 0 and top not in GROUND:
      wrong.append(f"{module} (L0) imports {top}")
    if module.startswith("gkd.report") and top in ("gkd", "jax", "flax"):
      ours = name in REPORT or name.startswith("gkd.report")
      wrong += [] if ours else [f"{module} imports {name}"]
  return wrong


def test_imports_point_downward():
  assert [w for m in IMPORTS for w in violations(m, IMPORTS[m])] == []


@pytest.mark.parametrize(
  ("module", "source", "count"),
  [
    ("gkd.losses.divergence", "from gkd.sampling import sampler", 1),
    ("gkd.losses.divergence", "from gkd.models import t5", 1),
    ("gkd.training.step", "from gkd.training import loop", 1),
    ("gkd.training.loop", "from gkd.cli import main", 1),
    ("gkd.config.setup", "from gkd.cli import main", 1),
    ("gkd.data.loader", "def f():\n  import tensorflow as tf", 1),
    ("gkd.data.loader", "import seqio.vocabularies", 1),
    ("gkd.models.t5", "import torch", 1),
    ("gkd.cli.main", "import gin", 1),
    ("gkd.masks", "import optax", 1),
    ("gkd.report.read", "import jax", 1),
    ("gkd.tasks.arithmetic", "import seqio", 0),
    ("gkd.data.builder.seqio_source", "def f():\n  import seqio", 0),
    ("gkd.losses.objective", "from gkd.losses import divergence", 0),
    ("gkd.config.configuration", "from gin import config", 0),
  ],
)
def test_a_wrong_import_is_noticed(module, source, count):
  assert len(violations(module, imports(source))) == count


def test_there_are_no_import_cycles():
  graph = {m: {n for n in IMPORTS[m] if n in MODULES and n != m}
           for m in MODULES}  # fmt: skip
  # A package's __init__ runs before its modules; nothing else is in it.
  list(graphlib.TopologicalSorter(graph).static_order())


def test_no_two_modules_have_one_basename():
  names = collections.Counter(
    path.stem for path in MODULES.values() if not path.stem.startswith("__")
  )
  twice = {name for name, count in names.items() if count > 1}
  assert twice - SHARED_NAMES == set()


def test_files_and_functions_are_small():
  long = {
    module: lines
    for module, source in SOURCES.items()
    if (lines := len(source.splitlines()))
    > LONG_FILES.get(module, MAX_FILE_LINES)
  }
  for module, source in SOURCES.items():
    for node in ast.walk(ast.parse(source)):
      if isinstance(node, ast.FunctionDef):
        name = f"{module}.{node.name}"
        lines = node.end_lineno - node.lineno + 1
        if lines > LONG_FUNCTIONS.get(name, MAX_FUNCTION_LINES):
          long[name] = lines
  assert long == {}


def test_help_imports_neither_jax_nor_gin():
  code = """
    import sys
    from gkd.cli.main import main
    try:
      main(["--help"])
    except SystemExit:
      pass
    assert not {"jax", "gin", "tensorflow"} & set(sys.modules)
  """
  child.run(code)
