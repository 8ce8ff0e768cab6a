"""Where a command finds and keeps files on this machine."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Folders:
  """Where raw files and token caches are on this machine.

  Attributes:
    data_dir: files that tasks read; "" where none is set.
    cache_dir: token caches.
  """

  data_dir: str
  cache_dir: str
