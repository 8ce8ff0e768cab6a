"""Code in a new interpreter that finds the same modules as this one."""

import os
import subprocess
import sys
import textwrap


def start(code, *arguments, **environment) -> subprocess.Popen:
  """Starts it; its output is a pipe."""
  path = os.pathsep.join(p for p in [os.getcwd(), *sys.path] if p)
  return subprocess.Popen(
    [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
    env={**os.environ, "PYTHONPATH": path, **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def run(code, *arguments) -> str:
  """What it prints; it must end well."""
  child = start(code, *arguments)
  output, errors = child.communicate()
  assert child.returncode == 0, errors
  return output.strip()
