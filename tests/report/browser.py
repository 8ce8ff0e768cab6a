"""A page in headless Chromium: screenshots, and what a script can measure.

The page is shown in a frame, as windows have a smallest width.

  measure(find(), "report.html", 390, "innerWidth", dark=True)  # 390

As a command it takes the pictures of results/report:
  python -m tests.report.browser report.html results/report
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from matplotlib import image

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 60.0  # a page that takes longer is broken
_FRAME = """<meta charset="utf-8"><body style="margin:0"><iframe src="{page}"
width="{width}" height="{height}" style="border:0"></iframe><script>
const frame = document.querySelector('iframe');
frame.onload = () => {{
  const found = frame.contentWindow.eval({expression});
  document.body.appendChild(document.createElement('pre')).textContent =
    'found' + JSON.stringify(found) + 'end';
}};
</script>"""
# Name, width, where it begins and how much of it is shown; dark or light.
_PICTURES = (
  ("desktop_light", 1280, "body", 1500, False),
  ("desktop_dark", 1280, ".runs", 1500, True),
  ("phone_light", 390, "body", 1700, False),
  ("phone_dark", 390, ".runs", 1700, True),
)


def find() -> str | None:
  """The browser's program, if the machine has one."""
  return next(filter(None, map(shutil.which, _NAMES)), None)


def measure(
  program: str,
  page: str | os.PathLike,
  width: int,
  expression: str,
  dark: bool = False,
) -> Any:
  """The JSON value of a JavaScript expression on the page."""
  height = 844 if width < 600 else 900
  shown = _show(program, page, width, height, expression, dark, "--dump-dom")
  return json.loads(re.search("found(.*)end</pre>", shown).group(1))


def screenshot(
  program: str,
  page: str,
  path: str,
  width: int,
  height: int,
  top: float = 0,
  dark: bool = False,
) -> None:
  """Writes a PNG of the page's whole width from `top` down."""
  flags = f"--screenshot={path}", f"--window-size={max(width, 600)},{height}"
  _show(program, page, width, height, f"scrollTo(0, {top})", dark, *flags)
  image.imsave(path, image.imread(path)[:, :width])


def _show(program, page, width, height, expression, dark, *flags) -> str:
  with tempfile.TemporaryDirectory() as folder:
    frame = pathlib.Path(folder) / "frame.html"
    text = _FRAME.format(
      page=pathlib.Path(page).absolute().as_uri(),
      width=width,
      height=height,
      expression=json.dumps(expression),
    )
    frame.write_text(text)
    done = subprocess.run(
      [
        program,
        "--headless=new",
        "--disable-gpu",
        "--hide-scrollbars",
        "--allow-file-access-from-files",  # a script may look into the frame
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--user-data-dir={folder}/profile",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        *flags,
        frame.as_uri(),
      ],
      capture_output=True,
      check=True,
      encoding="utf-8",
      timeout=_SECONDS,
    )
  return done.stdout.replace("&amp;", "&").replace("&lt;", "<")


def main(page: str, folder: str) -> None:
  program = find()
  if program is None:
    sys.exit(f"no browser here; install one of {', '.join(_NAMES)}")
  os.makedirs(folder, exist_ok=True)
  for name, width, selector, height, dark in _PICTURES:
    place = f"document.querySelector('{selector}').getBoundingClientRect().top"
    top = measure(program, page, width, place)
    path = os.path.join(folder, f"{name}.png")
    screenshot(program, page, path, width, height, max(0, top), dark)
    print(f"{path}: {os.path.getsize(path):,} bytes")


if __name__ == "__main__":
  main(*sys.argv[1:])
