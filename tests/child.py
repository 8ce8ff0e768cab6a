"""Code in a new interpreter that finds the same modules as this one."""

import os
import pathlib
import subprocess
import sys
import textwrap
import threading

_ROOT = str(pathlib.Path(__file__).parents[1])
_SECONDS = 300  # what hangs is killed, and its test fails


def start(code, *arguments, **environment) -> subprocess.Popen:
  """Starts it; its output is a pipe. Killed at a deadline."""
  path = os.pathsep.join(p for p in [_ROOT, *sys.path] if p)
  process = subprocess.Popen(
    [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
    env={**os.environ, "PYTHONPATH": path, **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  deadline = threading.Timer(_SECONDS, process.kill)
  deadline.daemon = True
  deadline.start()
  return process


def run(code, *arguments) -> str:
  """What it prints; it must end well."""
  child = start(code, *arguments)
  output, errors = child.communicate()
  assert child.returncode == 0, errors
  return output.strip()
