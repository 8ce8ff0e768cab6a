"""What an entry of EVAL_ALSO names: one more split to evaluate on.

  svamp/test                                   of the same TASK_MODULE
  gkd.tasks.translation:flores200_ende/test    of another module
  /data/caches/svamp-test                      a token cache; also ./… and ~/…

It is read by `named("svamp/test")`.
"""

import re

from gkd.types import UserError

_ENTRY = re.compile(
  r"(?:(?P<module>[\w.]+):)?(?P<task>[^/:\s]+)/(?P<split>[^/\s]+)"
)


def named(entry: str) -> dict[str, str]:
  """The fields of `records.Data` that the entry sets.

  Raises:
    UserError: it is neither a task and split nor a folder.
  """
  if entry.startswith(("/", "./", "../", "~")):
    return {"task": "", "split": "", "module": "", "cache": entry}
  found = _ENTRY.fullmatch(entry)
  if found is None:
    raise UserError(
      f"EVAL_ALSO has {entry!r}; expected 'task/split', 'module:task/split' or"
      " the folder of a token cache, beginning with / or ./ or ~"
    )
  fields = found.groupdict()
  named = {"task": fields["task"], "split": fields["split"], "cache": ""}
  return named | ({"module": fields["module"]} if fields["module"] else {})
