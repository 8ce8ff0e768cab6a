"""A page in headless Chromium: screenshots, and what a script can measure.

Driven over its debugging pipe, which needs no driver and no network. Widths of
phones are emulated, as windows have a smallest width.

  with Browser(find()) as browser:
    browser.open("report.html", width=390, dark=True)
    browser.screenshot("phone.png", height=1600)

As a command it takes the pictures of results/report:
  python -m tests.report.browser report.html results/report
"""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 60.0  # a page that takes longer is broken
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


class Browser:
  """One tab of a browser of its own; closed at the end of the block."""

  def __init__(self, program: str):
    self._profile = tempfile.mkdtemp()
    theirs_in, self._to = os.pipe()
    self._from, theirs_out = os.pipe()
    flags = [
      "--headless=new",
      "--disable-gpu",
      "--hide-scrollbars",
      "--remote-debugging-pipe",  # reads descriptor 3, writes descriptor 4
      f"--user-data-dir={self._profile}",
    ]
    if os.geteuid() == 0:
      flags.append("--no-sandbox")
    opened = f'exec "$@" 3</dev/fd/{theirs_in} 4>/dev/fd/{theirs_out}'
    self._process = subprocess.Popen(
      ["sh", "-c", opened, "sh", program, *flags, "about:blank"],
      pass_fds=(theirs_in, theirs_out),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    self._waiting = b""
    self._count = 0
    self._session = ""

  def __enter__(self) -> "Browser":
    target = self._call("Target.createTarget", url="about:blank")["targetId"]
    attached = self._call(
      "Target.attachToTarget", targetId=target, flatten=True
    )
    self._session = attached["sessionId"]
    self._call("Page.enable")
    return self

  def __exit__(self, *exception) -> None:
    self._process.kill()
    self._process.wait()
    os.close(self._to)
    os.close(self._from)
    shutil.rmtree(self._profile, ignore_errors=True)

  def open(
    self, path: str | os.PathLike, width: int, dark: bool = False
  ) -> None:
    """Loads a page at a width of so many CSS pixels."""
    self._call(
      "Emulation.setDeviceMetricsOverride",
      width=width,
      height=844 if width < 600 else 900,
      deviceScaleFactor=1,
      mobile=width < 600,
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" * dark or "light"}
    self._call("Emulation.setEmulatedMedia", features=[scheme])
    # A page that reads well without scripts is what is promised.
    self._call("Emulation.setScriptExecutionDisabled", value=True)
    self._call("Page.navigate", url=pathlib.Path(path).absolute().as_uri())
    while self._read().get("method") != "Page.loadEventFired":
      pass

  def measure(self, expression: str) -> Any:
    """The JSON value of a JavaScript expression on the page."""
    self._call("Emulation.setScriptExecutionDisabled", value=False)
    found = self._call(
      "Runtime.evaluate", expression=expression, returnByValue=True
    )
    assert "exceptionDetails" not in found, found["exceptionDetails"]
    return found["result"].get("value")

  def screenshot(self, path: str, top: float = 0, height: float = 900) -> None:
    """Writes a PNG of the page's whole width from `top` down."""
    width = self.measure("document.documentElement.clientWidth")
    clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
    found = self._call(
      "Page.captureScreenshot",
      format="png",
      clip=clip,
      captureBeyondViewport=True,
    )
    pathlib.Path(path).write_bytes(base64.b64decode(found["data"]))

  def _call(self, method: str, **parameters) -> dict[str, Any]:
    self._count += 1
    message = {"id": self._count, "method": method, "params": parameters}
    if self._session:
      message["sessionId"] = self._session
    os.write(self._to, json.dumps(message).encode() + b"\0")
    while True:
      answer = self._read()
      if answer.get("id") == self._count:
        assert "error" not in answer, (method, answer)
        return answer["result"]

  def _read(self) -> dict[str, Any]:
    deadline = time.monotonic() + _SECONDS
    while b"\0" not in self._waiting:
      left = max(0.0, deadline - time.monotonic())
      ready, _, _ = select.select([self._from], [], [], left)
      data = os.read(self._from, 1 << 20) if ready else b""
      if not data:
        raise TimeoutError("the browser does not answer")
      self._waiting += data
    one, _, self._waiting = self._waiting.partition(b"\0")
    return json.loads(one)


def main(page: str, folder: str) -> None:
  program = find()
  if program is None:
    sys.exit(f"no browser here; install one of {', '.join(_NAMES)}")
  os.makedirs(folder, exist_ok=True)
  with Browser(program) as browser:
    for name, width, selector, height, dark in _PICTURES:
      browser.open(page, width, dark)
      place = f"document.querySelector('{selector}').getBoundingClientRect()"
      top = max(0, browser.measure(f"{place}.top + scrollY"))
      whole = browser.measure("document.documentElement.scrollHeight")
      path = os.path.join(folder, f"{name}.png")
      browser.screenshot(path, top, min(height, whole - top))
      print(f"{path}: {os.path.getsize(path):,} bytes")


if __name__ == "__main__":
  main(*sys.argv[1:])
