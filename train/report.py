"""Tables and figures on paper: Markdown and CSV files, and one HTML page that holds everything.

The page loads nothing from anywhere: pictures are inside it. It follows the reader's light or dark setting
and prints.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from streamer.errors import OutputError
from streamer.fetching import write_whole
from train.tables_cells import CSV_HEADER, Grid


@dataclass(frozen=True)
class Section:
    """A table or figure as it stands on the page.

    name: of its files, such as "table_V". grids: its tables. picture: PNG or SVG, of a figure. cells: lines
    of the CSV file. text: what a picture shows, in words.
    """

    name: str
    title: str
    conditions: str
    grids: tuple[Grid, ...] = ()
    picture: Path | None = None
    cells: tuple[Sequence[object], ...] = ()
    text: str = ""


def write_text(path: Path, text: str) -> Path:
    """Whole or not at all. Raises: OutputError if it cannot be written."""
    try:
        write_whole(path, text.encode("utf-8"))
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): name another --out") from error
    return path


def _plain(text: str) -> str:
    """Text that stays in its cell of a Markdown table: names of subjects are whatever a sheet says."""
    return " ".join(escape(text, quote=False).replace("|", "\\|").split())


def markdown_grid(grid: Grid, heading: str) -> str:
    """One table, without its title if the heading says the same; a column's name follows its group's."""
    heads = [
        f"{group}: {name}".strip(": ") if group else name for group, names in grid.header for name in names
    ]
    lines = [] if grid.title == heading else [f"## {grid.title}", ""]
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(map(_plain, row)) + " |" for row in grid.rows]
    lines += ["", *grid.notes] if grid.notes else []
    return "\n".join(lines)


def markdown(section: Section) -> str:
    """A section's Markdown file."""
    parts = [
        f"# {section.title}",
        section.conditions,
        *(markdown_grid(grid, section.title) for grid in section.grids),
    ]
    return "\n\n".join(parts) + "\n"


def write_section(section: Section, folder: Path) -> list[Path]:
    """`folder`/NAME.md and .csv of a section with tables."""
    paths = [write_text(folder / f"{section.name}.md", markdown(section))]
    if section.cells:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_HEADER)
        writer.writerows(section.cells)
        paths.append(write_text(folder / f"{section.name}.csv", text.getvalue()))
    return paths


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5a6570; --paper: #fff; --line: #d8dde2;
  --head: #f2f4f6; --mark: #fff3cd; --mark-ink: #5c4400; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a3adb6; --paper: #14181c;
  --line: #333b43; --head: #1e242a; --mark: #4a3b0c; --mark-ink: #ffe9a8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 92rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .3rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .4rem 0; max-width: 60rem; } .soft { color: var(--soft); font-size: .87rem; }
.mark { background: var(--mark); color: var(--mark-ink); padding: .6rem .9rem; border-radius: .4rem;
  font-weight: 600; max-width: none; }
nav a { margin-right: .8rem; white-space: nowrap; } a { color: inherit; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .28rem .6rem; text-align: right;
  white-space: nowrap; }
th { background: var(--head); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
thead tr:first-child th { text-align: center; } thead th + th { border-left: 1px solid var(--line); }
figure { margin: .8rem 0; } figure img { max-width: 100%; height: auto; background: #fff;
  border-radius: .4rem;
  border: 1px solid var(--line); padding: .5rem; }
@media print { :root { --ink: #000; --soft: #444; --paper: #fff; --line: #bbb; --head: #eee; --mark: #fff;
  --mark-ink: #000; } body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  table { font-size: 7.5pt; } th, td { padding: .15rem .3rem; } section, figure, tr { break-inside: avoid; }
  .wide { overflow: visible; } .mark { border: 2px solid #000; } }
"""


def html_grid(grid: Grid, heading: str) -> str:
    """One table; its title is left out where the heading above says the same."""
    top = "".join(f'<th colspan="{len(names)}">{escape(group)}</th>' for group, names in grid.header)
    under = "".join(f'<th scope="col">{escape(name)}</th>' for _, names in grid.header for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>\n" for row in grid.rows
    )
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in grid.notes)
    head = "" if grid.title == heading else f"<h3>{escape(grid.title)}</h3>\n"
    return (
        f"{head}"
        f'<div class="wide"><table><thead><tr>{top}</tr><tr>{under}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>{notes}"
    )


def html_section(section: Section) -> str:
    """A table or figure, under a heading that links can point to."""
    parts = [f'<section id="{escape(section.name)}"><h2>{escape(section.title)}</h2>']
    parts.append(f'<p class="soft">{escape(section.conditions)}</p>')
    parts += [html_grid(grid, section.title) for grid in section.grids]
    if section.picture is not None:
        kind = "svg+xml" if section.picture.suffix == ".svg" else "png"
        data = base64.b64encode(section.picture.read_bytes()).decode()
        parts.append(
            f'<figure><img alt="{escape(section.text)}" src="data:image/{kind};base64,{data}"></figure>'
        )
        parts.append(f'<p class="soft">{escape(section.text)}</p>')
    return "\n".join(parts) + "</section>"


def html_page(title: str, marks: Sequence[str], about: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole report. marks: warnings, shown large. about: paragraphs on how all of it came about."""
    links = "".join(f'<a href="#{escape(each.name)}">{escape(each.title)}</a> ' for each in sections)
    head = "".join(f'<p class="mark">{escape(mark)}</p>' for mark in marks)
    words = "".join(f"<p>{escape(text)}</p>" for text in about)
    body = "\n".join(html_section(section) for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>{head}{words}<nav>{links}</nav>\n{body}\n</body></html>\n"
    )
