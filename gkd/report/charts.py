"""Charts as data, and the colours that they are drawn in.

The modules that sections.py imports, and results.py, decide what is drawn;
drawing.py draws it with matplotlib, pictures.py makes SVG and PNG files.
"""

from collections.abc import Sequence
import dataclasses
from typing import Literal

# Searched for: any two of them, and each and the colour of text, differ clearly
# for readers who confuse red and green, or blue and yellow; all stand out from
# the page. tests/report/test_charts.py measures it.
LIGHT = (
  "#0854a2", "#d67c03", "#0ca760", "#bc7bb4", "#a80e00", "#977dff", "#8401eb",
  "#65615d",
)  # fmt: skip
DARK = (
  "#799eff", "#f1a830", "#21e589", "#9259a3", "#cb2a57", "#a1590a", "#7947ff",
  "#959da0",
)  # fmt: skip
# Lengths in points: how the 9th, 17th and 25th arm differ from the 1st.
DASHES = ((), (5, 1.5), (1.5, 1.2), (6, 1.5, 1.5, 1.5))
REFERENCE_DASHES = (4, 2.5)
NUM_STYLES = len(LIGHT) * len(DASHES)

# Curves of more points are drawn in so many bins.
MAX_POINTS = 400
NUM_BINS = 200

Scale = Literal["linear", "log"]


@dataclasses.dataclass(frozen=True)
class Series:
  """One line, or one bar of each group."""

  name: str  # as it stands in the legend
  colour: int | None  # index into the palette; None for the colour of text
  ys: Sequence[float]  # values; of bars one for each group
  xs: Sequence[float] = ()  # of a line, its steps; unused in bars
  # Ends of the band around a line, or of the interval of each bar; none if
  # empty, and no interval where not finite.
  low: Sequence[float] = ()
  high: Sequence[float] = ()
  # Single values behind the mean of each bar.
  points: Sequence[Sequence[float]] = ()
  is_reference: bool = False  # for comparison: dashed, without a band
  is_broken: bool = False  # the values after the last one were not finite
  is_context: bool = False  # in grey behind the others
  marked: int | None = None  # place of a point that has a dot

  @property
  def dashes(self) -> tuple[float, ...]:
    """Lengths of dashes and gaps; empty for a solid line."""
    if self.is_reference:
      return REFERENCE_DASHES
    return DASHES[self.colour // len(LIGHT) % len(DASHES)]


@dataclasses.dataclass(frozen=True)
class Chart:
  """What to draw."""

  slug: str  # file name of the PNG, without extension
  title: str
  note: str  # how to read it; may be empty
  kind: Literal["lines", "bars", "stacked"]  # bars side by side, or stacked
  series: Sequence[Series]
  x_label: str = "updates"  # of lines
  x_ticks: Sequence[str] = ()  # names of the places 0, 1, … of lines
  groups: Sequence[str] = ()  # names of the groups of bars
  x_scale: Scale = "linear"  # of lines
  y_scale: Scale = "linear"
  is_path: bool = False  # lines that may go back, with a dot at the end
  is_downsampled: bool = False  # whether long lines are drawn in bins
  has_own_lines: bool = False  # named beside it, not once for the report
  is_folded: bool = False  # drawn below what one reads first

  def with_linear_axis(self) -> "Chart":
    """The same curves on a linear horizontal axis."""
    slug = f"{self.slug}_linear"
    return dataclasses.replace(self, x_scale="linear", slug=slug)


def bars(
  slug: str,
  title: str,
  notes: Sequence[str],
  groups: Sequence[str],
  series: Sequence[Series],
) -> Chart:
  """Bars side by side, of means over seeds and their single values."""
  if any(len(values) > 1 for one in series for values in one.points):
    notes = [*notes, "Bars are means over seeds, dots single seeds."]
  note = " ".join(filter(None, notes))
  return Chart(slug, title, note, "bars", series, groups=groups)
