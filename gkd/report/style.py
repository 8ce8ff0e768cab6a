"""The style sheet of a report: one page for desk, phone, light and dark."""

from gkd.report.plots import DARK
from gkd.report.plots import LIGHT


def style_sheet() -> str:
  """CSS with both palettes; nothing is loaded from outside."""
  return _CSS.replace("/*light*/", _variables(LIGHT)).replace(
    "/*dark*/", _variables(DARK)
  )


def _variables(colours) -> str:
  return " ".join(f"--s{n}: {colour};" for n, colour in enumerate(colours))


_CSS = """
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --card: #ffffff; --ink: #22252a; --soft: #5d646e;
  --grid: #dfe2e6; --line: #e4e6e9; --mark: #eef4fa; --good: #137a4b;
  --bad: #b3261e; --shade: #22252a33; /*light*/
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14161a; --card: #1c1f25; --ink: #e4e6ea; --soft: #9aa2ad;
    --grid: #363b44; --line: #2d323a; --mark: #1f2b38; --good: #5fd39a;
    --bad: #ff8f85; --shade: #000000aa; /*dark*/
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 1200px; padding: 2.5rem 1.5rem 4rem;
  background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
    "Liberation Sans", "DejaVu Sans", sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem;
  letter-spacing: -.015em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .8rem; letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 0; font-weight: 600; overflow-wrap: anywhere; }
section > h3 { margin: 1.4rem 0 .6rem; }
p { margin: 0 0 .8rem; }
a { color: inherit; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap; }
.contents ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0;
  margin: 1.4rem 0 0; list-style: none; font-size: .9rem; }
.notes { padding-left: 1.2rem; font-size: .9rem; overflow-wrap: anywhere; }
.notes li { margin: .2rem 0; }
h2 { scroll-margin-top: 4rem; }
:focus-visible { outline: 2px solid var(--s0); outline-offset: 2px; }
.soft, .note { color: var(--soft); }
.note { font-size: .88rem; }
.meta { display: grid; grid-template-columns: max-content 1fr;
  gap: .15rem 1.2rem; margin: 1rem 0 0; font-size: .9rem; }
.meta dt { color: var(--soft); }
.meta dd { margin: 0; overflow-wrap: anywhere; }
/* A shadow at the right edge as long as there is more to scroll to. */
.scroll { overflow-x: auto; background:
  linear-gradient(to left, var(--card) 60%, transparent) right / 3rem 100%
    no-repeat local,
  linear-gradient(to left, var(--shade), transparent) right / 1rem 100%
    no-repeat scroll, var(--card);
  border: 1px solid var(--line); border-radius: 10px; margin: 0 0 .6rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .55rem .7rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); vertical-align: baseline; }
tr:last-child td, tr:last-child th { border-bottom: 0; }
thead th { font-weight: 600; font-size: .82rem; color: var(--soft);
  vertical-align: bottom; white-space: normal; min-width: 4.6rem; }
tbody th { font-weight: 500; }
th:first-child { position: sticky; left: 0; background: var(--card);
  max-width: 22rem; }
tbody th:first-child { overflow-wrap: break-word; }
.long-names th:first-child { min-width: 15rem; white-space: normal; }
td:not(.number) { white-space: normal; min-width: 6.5rem; }
.number { text-align: right; white-space: normal; }
.range { color: var(--soft); font-size: .84em; font-weight: 400;
  white-space: nowrap; }
.best { font-weight: 700; }
.settings td { white-space: pre-wrap; overflow-wrap: break-word;
  min-width: 8.5rem; max-width: 24rem; }
.narrow td { overflow-wrap: anywhere; max-width: 12rem; }
.settings th:first-child { white-space: normal; min-width: 9rem; }
.settings td, .settings tbody th, pre, .text {
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono",
    "DejaVu Sans Mono", monospace; font-size: .84rem; }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
.charts + .packed { margin-top: 1rem; }
.packed { display: block; columns: 340px 3; column-gap: 1rem; }
.packed figure { break-inside: avoid; margin-bottom: 1rem; }
figure { margin: 0; padding: .9rem 1rem .6rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; min-width: 0; }
figcaption { margin-bottom: .4rem; }
figure .note { margin: .1rem 0 0; }
svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; }
figure details { margin: .3rem 0 0; font-size: .88rem; }
figure summary { font-weight: 400; color: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: .3rem 0;
  padding: 0; list-style: none; font-size: .88rem; }
.legend li { display: flex; align-items: center; gap: .45rem; min-width: 0;
  overflow-wrap: anywhere; }
.swatch { width: 1.9rem; height: .25rem; flex: none; }
.box { height: .8rem; width: .8rem; border-radius: 2px; flex: none; }
.runs { position: sticky; top: 0; z-index: 2; background: var(--page);
  padding: .4rem 0; border-bottom: 1px solid var(--line);
  margin: 0 0 1rem; max-height: 30vh; overflow-y: auto; }
.runs summary { font-size: .82rem; color: var(--soft); padding: 0; }
.example { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: .9rem 1rem; margin: 0 0 1rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.answers { display: grid; gap: .8rem 1.4rem; margin: .7rem 0 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 230px), 1fr)); }
.answers dt { font-size: .88rem; color: var(--soft); overflow-wrap: anywhere; }
.answers dd { margin: 0; min-width: 0; }
.right { color: var(--good); } .wrong { color: var(--bad); }
.verdict { font-size: .82rem; margin-left: .4rem; white-space: nowrap; }
details { margin: .8rem 0; }
summary { cursor: pointer; padding: .3rem 0; font-weight: 600;
  overflow-wrap: anywhere; }
pre { overflow-x: auto; background: var(--card); padding: .9rem 1rem;
  border: 1px solid var(--line); border-radius: 10px; margin: .4rem 0; }
footer { margin-top: 3.5rem; color: var(--soft); font-size: .88rem; }
@media (max-width: 600px) {
  body { padding: 1.4rem .9rem 3rem; }
  h1 { font-size: 1.5rem; }
  h2 { margin-top: 2.2rem; }
  th, td { padding: .5rem .65rem; }
  th:first-child, .long-names th:first-child { min-width: 7.5rem;
    max-width: 9.5rem; white-space: normal; }
  .runs { max-height: 24vh; }
  /* The table scrolls sideways anyway: no tall rows for a hidden column. */
  td:not(.number) { white-space: nowrap; }
  .settings td { white-space: pre-wrap; }
  figure { padding: .8rem .7rem .5rem; }
}
@media (max-height: 500px) { .runs { position: static; } }
@media print {
  .runs { position: static; }
  figure, .example { break-inside: avoid; }
}
"""
