"""The rates of a registered mixture, beside the caches of its tasks.

They are computed once, where seqio is. `<cache_dir>/<mixture>/mixture.json`
keeps them with the code and the raw files that they depend on, so that they are
found without TensorFlow and a change is noticed.

Usage:
  write("caches", "my_mixture", {"gsm8k": 3.0, "svamp": 1.0}, caches)
  rates = find("caches", "my_mixture", data_dir)
"""

from collections.abc import Iterable
from collections.abc import Mapping
import json
import logging
import os
from pathlib import Path

from gkd import files
from gkd.data import freshness
from gkd.data.cache import TokenCache

log = logging.getLogger("gkd")

NAME = "mixture.json"
_FORMAT = 1


def write(
  cache_dir: str | os.PathLike,
  mixture: str,
  rates: Mapping[str, float],
  caches: Iterable[TokenCache],
) -> Path:
  """Writes the rates, with what the caches were made of; returns the path."""
  content = {"format": _FORMAT, "rates": dict(rates)}
  for field in ("sources", "raw_files"):
    content[field] = {}
    for cache in caches:
      content[field] |= cache.info.get(field, {})
  path = Path(cache_dir) / mixture / NAME
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_text(path, json.dumps(content, indent=2))
  return path


def find(
  cache_dir: str | os.PathLike,
  mixture: str,
  data_dir: str | os.PathLike | None = None,
) -> dict[str, float] | None:
  """{task: rate} of a mixture; None without a file, or with a stale one."""
  path = Path(cache_dir) / mixture / NAME
  if not path.is_file():
    return None
  try:
    content = json.loads(path.read_text("utf-8"))
    known = content["format"] == _FORMAT
  except (OSError, ValueError, KeyError, TypeError) as error:
    log.warning("%s cannot be read (%s) and is passed over", path, error)
    return None
  if not known or not freshness.is_fresh(path, content, data_dir):
    return None
  return content["rates"]
