"""The rates of a registered mixture, beside the caches of its tasks.

They are computed once, where seqio is, for one split, on whose size they may
depend. `<cache_dir>/<mixture>/mixture.json` keeps them with the code and the
raw files behind them, so that they are found without TensorFlow.
"""

from collections.abc import Collection
from collections.abc import Mapping
import json
import logging
import os
from pathlib import Path

from gkd import files
from gkd.data.builder import cache_key
from gkd.data.cache import TokenCache
from gkd.errors import UserError

log = logging.getLogger("gkd")

NAME = "mixture.json"
_FORMAT = 2
_FIELDS = {
  "rates": {str: (int, float)},
  "sources": {str: str},
  "raw_files": {str: {"bytes": int, "mtime_ns": int, "sha256": str}},
}


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
  if not path.exists():
    return None
  remedy = "it is passed over"
  try:
    content = files.read_json(path, {"format": int}, remedy)
    is_known = content.get("format") == _FORMAT
    if is_known:
      files.check_types(path, content, _FIELDS, remedy, required=True)
  except UserError as error:
    log.warning("%s", error)
    return None
  fits = is_known and split in (None, content.get("split"))
  fresh = fits and cache_key.is_fresh(path, content, data_dir)
  return content["rates"] if fresh else None
