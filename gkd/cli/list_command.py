"""`gkd list`: tasks, methods, divergences, rewards and models."""

import sys

from gkd.config import configuration
from gkd.models import registry
from gkd.models import sizes
from gkd.models.t5 import T5Config


def entries(kind: str) -> list[str]:
  """A line for each, the name as a flag takes it and what it is."""
  if kind == "models":
    named = ((f"%{name}", T5Config.from_size(name)) for name in sizes.NAMES)
    rows = [(name, sizes.describe(config)) for name, config in named]
    for family, kind in registry.with_sizes().items():
      about, _, _ = sys.modules[kind.__module__].__doc__.partition("\n")
      by = f"By a checkpoint, or the fields of {kind.__name__}."
      rows.append((f"{{'family': {family!r}, …}}", f"{about} {by}"))
  else:
    folder = configuration.config_folder()
    files = sorted((folder / kind).glob("*.gin"))
    headers = [file.read_text("utf-8").partition("\n")[0][2:] for file in files]
    names = [file.relative_to(folder).as_posix() for file in files]
    rows = list(zip(names, headers, strict=True))
  width = max(len(name) for name, _ in rows)
  return [f"{name.ljust(width)}  {text}" for name, text in rows]
