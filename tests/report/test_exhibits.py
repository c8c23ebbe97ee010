"""Figures and tables of other stages: shown with their words, cut to their recipe, and never silently missing."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import polars as pl
import pytest

from ospor_batch.contracts.table import empty, whole
from ospor_batch.report.exhibits import Absent, Exhibits, Image
from ospor_batch.report.html import render
from ospor_batch.report.page import compose
from tests.report.made import NAME, Made

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def png() -> bytes:
    """One grey pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\x00\x80")) + chunk(b"IEND", b"")


def exhibit(**given: Any) -> dict[str, Any]:
    said = {
        "file": "heat.png", "kind": "figure", "recipe": NAME, "contract": None, "section": "Where the network looked",
        "position": 0, "title": "Mean map <b>", "caption": "Internal test, n = 61 & 212.", "alt_text": "A warm \"middle\".",
        "hidden_columns": None,
    }  # fmt: skip
    return said | given


def exhibits(rows: list[dict[str, Any]], **files: Any) -> Exhibits:
    frame = whole(pl.DataFrame(rows, schema=empty("exhibit").schema), "exhibit")
    return Exhibits(frame, files.get("pictures", {}), files.get("frames", {}))


def page_with(made: Made, shown: Exhibits) -> str:
    made.frames |= {name: made.frames[name].clear() for name in ("roc_point", "agreement_point")}
    tables = made.tables()
    return render(compose(made.study, type(tables)(tables.run, tables.frames, shown)))


def test_a_picture_stands_with_its_words_and_cannot_run(made: Made) -> None:
    rows = [exhibit(), exhibit(file="map.svg", position=1)]
    page = page_with(made, exhibits(rows, pictures={"heat.png": png(), "map.svg": SVG}))
    assert f'src="data:image/png;base64,{base64.b64encode(png()).decode()}"' in page
    assert 'src="data:image/svg+xml;base64,' in page
    assert "alert(1)" not in page
    assert 'alt="A warm &quot;middle&quot;."' in page
    assert "Mean map &lt;b&gt;" in page
    assert "n = 61 &amp; 212." in page
    assert page.count("<h3>Where the network looked</h3>") == 1


@pytest.mark.parametrize(
    ("given", "body", "said"),
    [({}, None, "is not there"), ({}, b"GIF89a", "is no PNG"), ({"file": "map.svg"}, b"<html>", "is no SVG"),
     ({}, png() + b"\0" * (4 << 20), "is larger than 4 MiB"),
     ({"file": "sizes", "kind": "table", "contract": "comparison", "alt_text": None}, None, "is not there")],
)  # fmt: skip
def test_what_cannot_be_shown_is_said(given: dict[str, Any], body: bytes | None, said: str) -> None:
    row = exhibit(**given)
    pictures = {} if body is None else {row["file"]: body}
    ((heading, (block,)),) = exhibits([row], pictures=pictures).sections(NAME)
    assert heading == "Where the network looked"
    assert isinstance(block, Absent)
    assert said in block.says


def test_a_table_is_cut_to_its_recipe_and_states_estimates_with_reasons(made: Made) -> None:
    base = {
        "recipe": NAME, "reference_id": "dxa_any_site", "partition": "test", "family": "auc_by_center", "first": "north",
        "second": "south", "model_digest": "0" * 16, "n_first": 40, "n_second": 50, "family_size": 1, "p_value": 0.04,
        "p_holm": 0.04, "p_bh": 0.04, "estimate": 0.1234, "estimate_lower": 0.01, "estimate_upper": 0.23,
        "interval_method": "delong_unpaired", "status": "estimated", "status_reason": None,
    }  # fmt: skip
    none = {"estimate": None, "estimate_lower": None, "estimate_upper": None, "status": "not_estimable"}
    rows = [
        base,
        base | none | {"second": "west", "status_reason": "too_few_events", "interval_method": "none"},
        base | {"recipe": "another", "second": "nowhere"},
    ]
    frame = whole(pl.DataFrame(rows, schema=empty("comparison").schema), "comparison")
    row = exhibit(file="sizes", kind="table", contract="comparison", alt_text=None, hidden_columns="n_first;n_second")
    page = page_with(made, exhibits([row], frames={"sizes": frame}))
    table = page[page.index('id="exhibit-mean-hu-sizes"') :].split("</table>")[0]
    assert "0.123" in table
    assert "0.010 to 0.230" in table
    assert "not estimable" in table
    assert "nowhere" not in table
    assert "Second" in table
    assert "First, n" not in table


def test_sections_follow_their_first_exhibit_and_other_recipes_stay_out() -> None:
    rows = [
        exhibit(file="b.png", section="Second", position=2), exhibit(file="a.png", section="First", position=1),
        exhibit(file="c.png", section="First", position=3), exhibit(file="d.png", recipe="another"),
        exhibit(file="e.png", recipe="all"),
    ]  # fmt: skip
    shown = exhibits(rows, pictures={row["file"]: png() for row in rows})
    found = shown.sections(NAME)
    assert [(heading, [block.name for block in blocks if isinstance(block, Image)]) for heading, blocks in found] == [
        ("First", ["exhibit-a-png", "exhibit-c-png"]),
        ("Second", ["exhibit-b-png"]),
    ]
    assert len(shown.sections("all")) == 1


def test_what_is_about_several_recipes_stands_after_the_last(made: Made) -> None:
    page = page_with(made, exhibits([exhibit(recipe="all")], pictures={"heat.png": png()}))
    assert page.rindex("Across recipes") > page.index("Attrition of mean_hu")
