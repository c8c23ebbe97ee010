"""One page of HTML that needs nothing else: no network, no font, no second file; everything written is escaped."""

from __future__ import annotations

from html import escape
from importlib import resources

from ospor_batch.report.display import Cell, DisplayTable
from ospor_batch.report.exhibits import Absent, Image
from ospor_batch.report.figures import Picture, safe_name
from ospor_batch.report.page import Block, Page, Remark, Section, Warnings

FILTERED_FROM = 9  # rows; a shorter table is read at a glance
# nothing may be fetched, whatever a name in a table says
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def render(page: Page) -> str:
    """Write the page as HTML text."""
    contents = "".join(
        f'<li><a href="#{_anchor(section)}">{escape(section.heading)}</a></li>'
        for section in page.sections
        if section.heading and section.level == 2
    )
    body = "\n".join(_section(section) for section in page.sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{escape(page.title)}</title>
<style>
{_file("style.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
<header>
<h1>{escape(page.title)}</h1>
<p>{escape(page.subtitle)}</p>
</header>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
<main id="main">
{body}
</main>
<script>
{_file("page.js")}</script>
</body>
</html>
"""


def table(shown: DisplayTable) -> str:
    """Write one table: caption, headings with their meaning, rows, and footnotes that say why a number is missing."""
    says = f'<span class="says">{escape(shown.says)}</span>' if shown.says else ""
    caption = f'<caption><span class="held">{escape(shown.caption)}{says}</span></caption>'
    if not shown.rows:
        return f'<p class="empty"><strong>{escape(shown.caption)}.</strong> {escape(shown.empty)}</p>'
    notes = _footnotes(shown)
    heads = "".join(
        f'<th scope="col"{_class("number" if column.is_number else "")}{_title(column.explains)}>{escape(column.heading)}</th>'
        for column in shown.columns
    )
    rows = "\n".join(f"<tr>{_row(row, notes=notes, slug=shown.name)}</tr>" for row in shown.rows)
    is_long = ' data-filter="yes"' if len(shown.rows) >= FILTERED_FROM else ""
    listed = "".join(f'<li id="{shown.name}-note-{i}"><sup>{_letter(i)}</sup> {escape(said)}</li>' for said, i in notes.items())
    foot = f'<ul class="footnotes" aria-label="Why numbers are missing">{listed}</ul>' if notes else ""
    return (
        f'<div class="table" id="{shown.name}"{is_long}><div class="scroll" role="region" tabindex="0" '
        f'aria-label="{escape(shown.caption)}"><table>{caption}\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n'
        f"</tbody></table></div>{foot}</div>"
    )


def _section(section: Section) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    if not section.heading:
        return blocks
    anchor = f' id="{_anchor(section)}"' if section.level == 2 else ""  # lower headings repeat from recipe to recipe
    head = f"<h{section.level}{anchor}>{escape(section.heading)}</h{section.level}>"
    if section.is_closed:
        return f"<section>{head}<details><summary>Show</summary>\n{blocks}\n</details></section>"
    return f"<section>{head}\n{blocks}\n</section>"


def _anchor(section: Section) -> str:
    return safe_name("section", section.heading)


def _block(block: Block) -> str:
    if isinstance(block, DisplayTable):
        return table(block)
    if isinstance(block, Picture):
        return _picture(block)
    if isinstance(block, Warnings):
        return _warnings(block)
    if isinstance(block, Image):
        return _image(block)
    if isinstance(block, Absent):
        return f'<p class="empty">{escape(block.says)}</p>'
    return _remark(block)


def _remark(remark: Remark) -> str:
    role = ' role="alert"' if remark.kind == "banner" else ""
    return f'<p class="{remark.kind}"{role}>{escape(remark.says)}</p>'


def _warnings(warnings: Warnings) -> str:
    if not warnings.found:
        return "<p>No warning arose from these tables.</p>"
    said = "\n".join(f"<li>{escape(caution.says)}</li>" for caution in warnings.found)
    return f'<ul class="warnings">\n{said}\n</ul>'


def _picture(picture: Picture) -> str:
    words = f'<details class="words"><summary>In words</summary><p>{escape(picture.says)}</p></details>'
    drawing = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(picture.title)}">{picture.inline}</div>'
    return f'<figure id="{picture.name}">{drawing}<figcaption>{escape(picture.title)}</figcaption>{words}</figure>'


def _image(image: Image) -> str:
    says = f'<span class="says">{escape(image.caption)}</span>'
    drawn = f'<img src="{image.address}" alt="{escape(image.says)}">'
    return f'<figure id="{image.name}">{drawn}<figcaption>{escape(image.title)}{says}</figcaption></figure>'


def _row(cells: tuple[Cell, ...], *, notes: dict[str, int], slug: str) -> str:
    return "".join(_cell(cell, is_head=i == 0, notes=notes, slug=slug) for i, cell in enumerate(cells))


def _cell(cell: Cell, *, is_head: bool, notes: dict[str, int], slug: str) -> str:
    mark = ""
    if cell.kind == "missing":
        at = notes[cell.remark]
        mark = f'<sup><a href="#{slug}-note-{at}">{_letter(at)}</a></sup>'
    sub = f'<span class="sub">{escape(cell.sub)}</span>' if cell.sub else ""
    order = "" if cell.sort is None else f' data-sort="{cell.sort!r}"'
    tag = 'th scope="row"' if is_head and cell.kind == "text" else "td"
    said = _unbroken(cell.text) if cell.kind == "number" else escape(cell.text)
    return f"<{tag}{_class(cell.kind)}{_title(cell.remark)}{order}>{said}{mark}{sub}</{tag.split(maxsplit=1)[0]}>"


def _unbroken(said: str) -> str:
    """Let an estimate part from its interval at the end of a line, never the interval."""
    value, bracket, interval = said.partition(" (")
    return f'{escape(value)} <span class="interval">({escape(interval)}</span>' if bracket else escape(said)


def _footnotes(shown: DisplayTable) -> dict[str, int]:
    """The reasons of missing numbers, in order of appearance, with the place of each."""
    said = [cell.remark for row in shown.rows for cell in row if cell.kind == "missing"]
    return {reason: i for i, reason in enumerate(dict.fromkeys(said))}


def _letter(at: int) -> str:
    """a, b ... z, aa, ab ..."""
    letters = 26
    return (_letter(at // letters - 1) if at >= letters else "") + chr(ord("a") + at % letters)


def _class(name: str) -> str:
    return f' class="{name}"' if name and name != "text" else ""


def _title(said: str) -> str:
    return f' title="{escape(said)}"' if said else ""


def _file(name: str) -> str:
    return resources.files("ospor_batch.report").joinpath(name).read_text(encoding="utf-8")
