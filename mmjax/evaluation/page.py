"""The page around a report: safe text, and one style sheet for light and dark, wide and narrow."""

import html
import re

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(text: object, *, limit: int = 400) -> str:
    """Make any text safe inside HTML, as content and in double or single quotes.

    Args:
        text: anything; its ``str`` is shown.
        limit: characters after which it is cut, with an ellipsis.

    Returns:
        The text with markup escaped; characters that HTML cannot hold become U+FFFD.

    >>> escape('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    shown = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(text))
    return html.escape(shown if len(shown) <= limit else shown[: limit - 1].rstrip() + "…")


def page(title: str, body: str) -> str:
    """A complete HTML document that loads nothing from anywhere.

    Args:
        title: shown by the browser; escaped here.
        body: the content of ``<body>``, already HTML.

    Returns:
        The document.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        '<meta name="generator" content="mmjax"/>'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>{body}</body></html>\n"
    )


# The series colours keep a contrast of 3:1 with both grounds and differ for colour-blind readers.
STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f5f2; --card: #ffffff; --ink: #1d1c1a; --soft: #66635d; --line: #e3e0d9;
  --tile: #f1efea; --accent: #2862c4; --right: #12733f; --right-ground: #e3f4e9;
  --s0: #2862c4; --s1: #c2500a; --s2: #0b7f72; --s3: #9440b5; --s4: #8a6a00; --s5: #c0336e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #141416; --card: #1d1d20; --ink: #eceae6; --soft: #a19d95; --line: #34343a;
    --tile: #29292e; --accent: #86b0ff; --right: #6fd69b; --right-ground: #173324;
    --s0: #79a8ff; --s1: #ff9a56; --s2: #4fcbb9; --s3: #d09bee; --s4: #dcb84c; --s5: #ff8fb8;
  }
  .drawing img { filter: invert(1); }
}

* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 0 20px 64px; max-width: 1200px;
  background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    "Liberation Sans", Arial, sans-serif;
  -webkit-text-size-adjust: 100%;
}
h1, h2, h3 {
  line-height: 1.2; letter-spacing: -0.012em; text-wrap: balance; overflow-wrap: anywhere;
}
h1 { font-size: 30px; margin: 4px 0 0; font-weight: 680; }
h2 { font-size: 21px; margin: 52px 0 6px; font-weight: 660; }
h3 { font-size: 15px; margin: 28px 0 10px; font-weight: 640; }
p { margin: 0; }
p.note { color: var(--soft); max-width: 80ch; overflow-wrap: anywhere; }
a { color: var(--accent); text-underline-offset: 3px; text-decoration-thickness: 1px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }

header { padding: 40px 0 0; }
.eyebrow { color: var(--soft); font-size: 13px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 20px; margin-top: 14px; font-size: 14px; }

.figures {
  display: grid; gap: 12px; margin-top: 24px;
  grid-template-columns: repeat(auto-fit, minmax(min(220px, 100%), 1fr));
}
.figures .card { padding: 14px 18px 13px; }
.figures b {
  display: block; font-size: 30px; line-height: 1.15; font-weight: 640;
  letter-spacing: -0.02em; font-variant-numeric: tabular-nums;
}
.figures span { display: block; overflow-wrap: anywhere; }
.figures small { color: var(--soft); font-size: 13px; }

dl {
  margin: 20px 0 0; padding: 6px 18px; display: grid; column-gap: 40px;
  grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr));
}
dl div {
  display: flex; justify-content: space-between; gap: 20px; padding: 8px 0; margin-bottom: -1px;
  border-bottom: 1px solid var(--line);
}
dt { color: var(--soft); flex: none; max-width: 60%; overflow-wrap: anywhere; }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; min-width: 0; }

.charts {
  display: grid; gap: 14px; margin-top: 16px; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(350px, 100%), 1fr));
}
.chart {
  margin: 0; padding: 13px 8px 6px 10px; height: 100%;
  display: flex; flex-direction: column; justify-content: space-between;
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
}
.chart figcaption { padding: 0 8px 6px; line-height: 1.35; overflow-wrap: anywhere; }
.chart figcaption small { color: var(--soft); }
.legend {
  display: flex; flex-wrap: wrap; gap: 2px 14px; margin-top: 3px;
  font-size: 12.5px; color: var(--soft);
}
.legend span { display: inline-flex; align-items: center; gap: 6px; min-width: 0; }
svg { display: block; width: 100%; }
svg.swatch { width: 22px; height: 8px; flex: none; }
svg text { font-size: 11.5px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); }
.tick { stroke: var(--soft); }
.s0 { --series: var(--s0); } .s1 { --series: var(--s1); } .s2 { --series: var(--s2); }
.s3 { --series: var(--s3); } .s4 { --series: var(--s4); } .s5 { --series: var(--s5); }
polyline, .swatch line { fill: none; stroke: var(--series); stroke-width: 1.8; }
polyline { stroke-linejoin: round; stroke-linecap: round; }
circle { fill: var(--series); }
.dashed { stroke-dasharray: 5 4; }
polyline.faint { stroke-width: 1; opacity: 0.33; }
.swatch .faint { opacity: 0.4; }

.scroll { overflow-x: auto; margin: 14px 0 10px; max-width: 100%; }
.scroll.small { width: fit-content; min-width: min(420px, 100%); }
table { border-collapse: collapse; width: 100%; }
th, td {
  padding: 9px 16px; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; border-bottom: 1px solid var(--line);
}
thead th { color: var(--soft); font-weight: 500; font-size: 13px; }
tbody th { font-weight: 500; }
tbody th small { color: var(--soft); font-size: inherit; font-weight: 400; }
tbody tr:last-child > * { border-bottom: 0; }
th.text, td.text { text-align: left; }
th.wrap, td.wrap { white-space: normal; overflow-wrap: anywhere; min-width: 7em; }
.bar { position: relative; }
.bar i {
  position: absolute; left: 16px; right: 16px; bottom: 5px; height: 3px;
  border-radius: 2px; background: var(--tile); overflow: hidden;
}
.bar i b { position: absolute; inset: 0 auto 0 0; background: var(--accent); }

ol { list-style: none; margin: 0; padding: 0; }
.answers {
  display: grid; gap: 12px; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(360px, 100%), 1fr));
}
.answer { padding: 13px 15px 14px; height: 100%; }
.asked {
  display: flex; gap: 12px; justify-content: space-between; align-items: baseline;
  margin-bottom: 10px;
}
.asked q { font-weight: 600; overflow-wrap: anywhere; min-width: 0; }
.verdict {
  flex: none; font-size: 13px; color: var(--soft); font-variant-numeric: tabular-nums;
}
.verdict.yes { color: var(--right); font-weight: 640; }
.tile {
  display: block; aspect-ratio: 1; padding: 13%; overflow: hidden;
  background: var(--tile); border-radius: 7px;
}
.tile img { display: block; width: 100%; height: 100%; object-fit: contain; }
.tile.photo { padding: 0; }
.tile.photo img { object-fit: cover; }
.tile.missing { padding: 4px; font-size: 11px; line-height: 1.25; overflow-wrap: anywhere; }
.right .tile { outline: 2.5px solid var(--right); outline-offset: 1px; }
.tiles { display: grid; grid-template-columns: repeat(5, 1fr) 9px 1fr; gap: 7px; }
.tiles li { min-width: 0; }
.tiles li.apart { grid-column: 7; }
.tiles small {
  display: block; margin-top: 5px; text-align: center; white-space: nowrap;
  font-size: 12px; color: var(--soft); font-variant-numeric: tabular-nums;
}
.tiles .right small { color: var(--right); font-weight: 640; }
.reading {
  display: grid; grid-template-columns: 92px minmax(0, 1fr); gap: 16px; align-items: start;
}
.found li {
  display: grid; grid-template-columns: 15px minmax(0, 1fr) auto; gap: 6px; padding: 2px 7px;
  border-radius: 5px; font-size: 14px; line-height: 1.4;
}
.found li > span { overflow-wrap: anywhere; }
.found small {
  color: var(--soft); font-size: 12.5px; line-height: 1.57; white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
.found .right { background: var(--right-ground); color: var(--right); font-weight: 500; }
.found .right small { color: inherit; }
.found .apart { margin-top: 8px; }
.mistake { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 14px; }
.mistake h4 {
  margin: 0 0 6px; min-height: 2.7em; font-size: 12.5px; line-height: 1.35; font-weight: 500;
  color: var(--soft);
}
.mistake h4 small { display: block; font: inherit; }
.mistake .right h4 { color: var(--right); font-weight: 640; }
.mistake .tile { max-width: 104px; }
.mistake p { overflow-wrap: anywhere; font-size: 14px; line-height: 1.35; }
.mistake .tile + p { margin-top: 6px; font-size: 12.5px; color: var(--soft); }

details { margin-top: 14px; padding: 10px 18px; }
summary { cursor: pointer; }
pre {
  overflow-x: auto;
  font: 13px/1.5 ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}

@media (max-width: 560px) {
  body { padding: 0 14px 48px; }
  header { padding-top: 26px; }
  h1 { font-size: 25px; }
  h2 { margin-top: 42px; }
  .figures { gap: 8px; grid-template-columns: 1fr 1fr; }
  .figures b { font-size: 25px; }
  .figures .card { padding: 11px 13px; }
  th, td { padding: 8px 11px; }
  .bar i { left: 11px; right: 11px; }
  .reading { grid-template-columns: 72px minmax(0, 1fr); gap: 12px; }
}
@media print {
  nav { display: none; }
  .card, .chart { break-inside: avoid; }
}
"""
