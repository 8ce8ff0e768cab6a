"""When and by which command a folder's results were made, for its run.json."""

import datetime
from pathlib import Path
import shlex
import sys

from gkd.checkpoints.native import run_folder


def starts(resumed: Path | None = None) -> list[dict[str, str]]:
  """The starts of a run that is resumed, in their order, and this one."""
  before = run_folder.describe_run(resumed) if resumed else {}
  now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
  command = f"gkd {shlex.join(sys.argv[1:])}"
  return [*before.get("starts", []), {"date": now, "command": command}]
