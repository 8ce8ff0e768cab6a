"""The rates of a registered mixture, beside the caches of its tasks.

They are computed once, where seqio is, and for one split, since they may depend
on its size. `<cache_dir>/<mixture>/mixture.json` keeps them with the code and
the raw files that they depend on, so that they are found without TensorFlow and
a change is noticed.
"""

from collections.abc import Collection
from collections.abc import Mapping
import json
import logging
import os
from pathlib import Path

from gkd import files
from gkd.data.builder import cache_key
from gkd.data.builder import staleness
from gkd.data.cache import TokenCache

log = logging.getLogger("gkd")

NAME = "mixture.json"
_FORMAT = 2


def write(
  cache_dir: str | os.PathLike,
  mixture: str,
  rates: Mapping[str, float],
  caches: Collection[TokenCache],
  split: str,
) -> Path:
  """Writes the rates of a split, with what the caches were made of."""
  content = {"format": _FORMAT, "key_format": cache_key.FORMAT}
  content |= {"split": split, "rates": dict(rates)}
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
  split: str | None = None,
) -> dict[str, float] | None:
  """{task: rate} of a mixture; None without a file that fits, or a stale one.

  `split` None takes the rates of whichever split they are of.
  """
  path = Path(cache_dir) / mixture / NAME
  if not path.is_file():
    return None
  try:
    content = json.loads(path.read_text("utf-8"))
    known = content["format"] == _FORMAT
  except (OSError, ValueError, KeyError, TypeError) as error:
    log.warning("%s cannot be read (%s) and is passed over", path, error)
    return None
  if not known or split not in (None, content.get("split")):
    return None
  fresh = staleness.is_fresh(path, content, data_dir)
  return content["rates"] if fresh else None
