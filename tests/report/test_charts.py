"""Colours that every reader tells apart, on a light and on a dark page."""

import itertools
import pathlib
import re

import numpy as np
import pytest

from gkd.report import charts

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISIONS = {
  "all colours": np.eye(3),
  "protanopia": [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  "deuteranopia": [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
  ],
  "tritanopia": [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.303900],
  ],
}
# sRGB to XYZ, D65.
_XYZ = np.array(
  [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
  ]
)


def _linear(colour):
  srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
  return np.where(
    srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4
  )


def _lab(linear):
  xyz = _XYZ @ np.clip(linear, 0, 1) / [0.95047, 1.0, 1.08883]
  x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
  return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _contrast(one, other):
  """Of WCAG 2: 3 for drawings, 4.5 for text."""
  light = sorted(float(_XYZ[1] @ _linear(colour)) for colour in (one, other))
  return (light[1] + 0.05) / (light[0] + 0.05)


def _variables(mode):
  """The page's colours in one mode."""
  sheet = pathlib.Path(charts.__file__).with_name("style.css").read_text()
  light, dark = sheet.split("@media (prefers-color-scheme: dark)")
  text = light if mode == "light" else dark.split("}")[0]
  return dict(re.findall(r"--(\w+): (#\w+);", text))


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("vision", VISIONS)
def test_any_two_colours_differ_for_every_kind_of_eyes(mode, vision):
  palette = charts.LIGHT if mode == "light" else charts.DARK
  seen = [
    _lab(np.array(VISIONS[vision]) @ _linear(colour))
    for colour in (*palette, _variables(mode)["ink"])
  ]
  nearest = min(
    np.linalg.norm(one - other)
    for one, other in itertools.combinations(seen, 2)
  )
  # 2 is just noticed when side by side; thin lines need ten times that.
  assert nearest > 20


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_lines_and_text_stand_out_from_the_page(mode):
  colours = _variables(mode)
  for ground in (colours["page"], colours["card"]):
    for name in ("ink", "soft", "good", "bad"):
      assert _contrast(colours[name], ground) >= 4.5, name
  for colour in charts.LIGHT if mode == "light" else charts.DARK:
    assert _contrast(colour, colours["card"]) >= 3.0, colour


def test_arms_of_one_colour_differ_in_their_dashes():
  styles = {
    (arm % len(charts.LIGHT), charts.Series("", arm, ()).dashes)
    for arm in range(charts.NUM_STYLES)
  }
  assert len(styles) == charts.NUM_STYLES
  assert charts.Series("", 0, ()).dashes == ()
