"""The HTML of the report: a document without anything from elsewhere, and tables that sort and filter themselves."""

from __future__ import annotations

import html
from collections.abc import Sequence

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; margin: 2rem auto; max-width: 1400px; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
.scroll { overflow: auto; max-height: 75vh; border: 1px solid #ddd; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eee; }
th { position: sticky; top: 0; background: #f4f5f7; cursor: pointer; user-select: none; }
th:focus-visible { outline: 2px solid #0072b2; outline-offset: -2px; }
th[aria-sort=ascending]::after { content: " ▲"; } th[aria-sort=descending]::after { content: " ▼"; }
td:first-child, th:first-child { text-align: left; }
tbody tr:hover { background: #eef5fa; }
td[data-state=failed], td[data-state=damaged] { color: #b3261e; font-weight: 600; }
input[type=search] { font: inherit; width: min(34rem, 90%); padding: .35rem .6rem; }
pre { overflow: auto; max-height: 30rem; background: #f6f7f8; padding: .8rem; font-size: .82rem; }
summary { cursor: pointer; padding: .15rem 0; } .note { color: #555; font-size: .87rem; }
"""

# A word of the filter is a text that some cell holds, or a column, one of = < > and a value.
_SCRIPT = """
const number = text => text.trim() === "" || text === "·" ? NaN : Number(text);
function sort(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows].map(row => [row, row.cells[column].textContent]);
  const rank = text => text === "·" || text === "nan" ? 2 : Number.isNaN(number(text)) ? 1 : 0;
  rows.sort(([, a], [, b]) => rank(a) - rank(b)
    || sign * (rank(a) === 0 ? number(a) - number(b) : a.localeCompare(b, undefined, {numeric: true})));
  table.tBodies[0].append(...rows.map(([row]) => row));
}
function matches(row, names, word) {
  const parts = word.match(/^([^=<>]+)([=<>])(.+)$/);
  const column = parts ? names.indexOf(parts[1]) : -1;
  if (column < 0) return row.textContent.toLowerCase().includes(word.toLowerCase());
  const text = row.cells[column].textContent, wanted = parts[3];
  if (parts[2] === "=") return text === wanted || (number(text) === number(wanted));
  return parts[2] === "<" ? number(text) < number(wanted) : number(text) > number(wanted);
}
function filter(table, text) {
  const words = text.split(/\\s+/).filter(Boolean);
  const names = [...table.tHead.rows[0].cells].map(cell => cell.textContent);
  const shown = new Set();
  for (const row of table.tBodies[0].rows) {
    row.hidden = !words.every(word => matches(row, names, word));
    if (!row.hidden) shown.add(row.cells[0].textContent);
  }
  document.getElementById("shown").textContent = `${shown.size} of ${table.tBodies[0].rows.length}`;
  const curves = document.getElementById("curves");
  if (curves && curves.data) Plotly.restyle(curves, {visible: curves.data.map(curve => shown.has(curve.name))});
}
for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    cell.tabIndex = 0;
    cell.addEventListener("click", () => sort(table, column));
    cell.addEventListener("keydown", event => { if (event.key === "Enter") sort(table, column); });
  });
}
const box = document.getElementById("filter"), trials = document.getElementById("trials");
if (box) { box.addEventListener("input", () => filter(trials, box.value)); filter(trials, box.value); }
"""


def document(title: str, body: str) -> str:
    """The whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n<script>{_SCRIPT}</script></body></html>\n"
    )


def section(title: str, body: str) -> str:
    """A heading with what belongs to it."""
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def filter_box() -> str:
    """The field that filters the table of trials and the curves."""
    note = (
        "every word must occur in the row; also <code>lr=0.01</code>, <code>loss&lt;2</code>, <code>state=failed</code>"
    )
    return (
        '<p><input type="search" id="filter" placeholder="filter" aria-label="filter the trials"> '
        f'<span id="shown"></span></p><p class="note">Filter: {note}. A click on a heading sorts.</p>'
    )


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> str:
    """A table whose headings sort it."""
    state = next((place for place, header in enumerate(headers) if header in ("state", "run.state")), -1)
    head = "".join(f"<th>{html.escape(header)}</th>" for header in headers)
    lines = []
    for row in rows:
        cells = (
            f'<td data-state="{html.escape(cell)}">{html.escape(cell)}</td>'
            if place == state
            else f"<td>{html.escape(cell)}</td>"
            for place, cell in enumerate(row)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    return (
        f'<div class="scroll"><table id="{name}"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    )
