"""`gkd list`: tasks, methods, divergences and model sizes by their names."""

from gkd.config import configuration
from gkd.models import sizes
from gkd.models.t5 import T5Config


def entries(kind: str) -> list[str]:
  """A line for each, the name as a flag takes it and what it is."""
  if kind == "models":
    named = ((f"%{name}", T5Config.from_size(name)) for name in sizes.NAMES)
    rows = [(name, sizes.describe(config)) for name, config in named]
  else:
    folder = configuration.config_folder()
    files = sorted((folder / kind).glob("*.gin"))
    headers = [file.read_text("utf-8").partition("\n")[0][2:] for file in files]
    names = [file.relative_to(folder).as_posix() for file in files]
    rows = list(zip(names, headers, strict=True))
  width = max(len(name) for name, _ in rows)
  return [f"{name.ljust(width)}  {text}" for name, text in rows]
