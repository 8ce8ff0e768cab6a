"""gkd: on-policy distillation of sequence models in JAX.

  import gkd

  gkd.show_log()
  teacher = gkd.load("flan-t5-base")
  student = gkd.train(gkd.Run(model_dir="runs/gkd", roles=…, …))
  gkd.generate(student, ["1+2="])

The names of `__all__` are the public interface; they are imported when they are
first used, so that `import gkd` costs nothing. See docs/python.md.
"""

import importlib
from typing import Any

__version__ = "0.2.0"
__all__ = ("Run", "evaluate", "generate", "load", "show_log", "train")


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f"module 'gkd' has no attribute {name!r}")
  return getattr(importlib.import_module("gkd.api"), name)


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
