"""Figures and tables that other stages hand to the report: shown as their ``exhibit`` rows say, never silently missing."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.report import tables
from ospor_batch.report.display import DisplayTable
from ospor_batch.report.figures import safe_name

EVERY_RECIPE = "all"
MEDIA = {"png": "image/png", "svg": "image/svg+xml"}
BEGINS = {"png": b"\x89PNG\r\n\x1a\n"}  # PNG, W3C second edition, 5.2
LARGEST_BYTES = 4 << 20  # of one picture: the page is one file that a browser must open


@dataclass(frozen=True)
class Image:
    """A picture made elsewhere, as a data address: nothing inside it can run or fetch."""

    name: str
    title: str
    caption: str
    says: str
    address: str


@dataclass(frozen=True)
class Absent:
    """What was announced and cannot be shown, and why."""

    says: str


@dataclass(frozen=True)
class Exhibits:
    """The rows of every writer, with the bytes of their figures and the rows of their tables; absent ones left out."""

    rows: pl.DataFrame
    pictures: Mapping[str, bytes]
    frames: Mapping[str, pl.DataFrame]

    def sections(self, recipe: str) -> list[tuple[str, tuple[Image | DisplayTable | Absent, ...]]]:
        """Heading and blocks of one recipe, headings in the order of their first exhibit."""
        mine = self.rows.filter(pl.col("recipe") == recipe).sort("position", "file")
        found: dict[str, list[Image | DisplayTable | Absent]] = {}
        for row in mine.iter_rows(named=True):
            found.setdefault(row["section"], []).append(self._block(row))
        return [(heading, tuple(blocks)) for heading, blocks in found.items()]

    def _block(self, row: Mapping[str, str]) -> Image | DisplayTable | Absent:
        return self._image(row) if row["kind"] == "figure" else self._table(row)

    def _image(self, row: Mapping[str, str]) -> Image | Absent:
        body, kind = self.pictures.get(row["file"]), row["file"].rpartition(".")[2]
        if body is None:
            return Absent(f"{row['title']}: the figure {row['file']} was announced and is not there.")
        if not body.startswith(BEGINS.get(kind, b"")) or (kind == "svg" and b"<svg" not in body):
            return Absent(f"{row['title']}: {row['file']} is no {kind.upper()}, so it is not shown.")
        if len(body) > LARGEST_BYTES:
            return Absent(f"{row['title']}: {row['file']} is larger than {LARGEST_BYTES >> 20} MiB; it stands in figures/.")
        address = f"data:{MEDIA[kind]};base64,{b64encode(body).decode('ascii')}"
        return Image(safe_name("exhibit", row["file"]), row["title"], row["caption"], row["alt_text"], address)

    def _table(self, row: Mapping[str, str]) -> DisplayTable | Absent:
        rows, of = self.frames.get(row["file"]), row["contract"]
        if rows is None:
            return Absent(f"{row['title']}: the table {row['file']} was announced and is not there.")
        if row["recipe"] != EVERY_RECIPE and "recipe" in rows.columns:
            rows = rows.filter(pl.col("recipe") == row["recipe"])
        return tables.plain(
            rows.sort(contract(of).primary_key),
            of,
            slug=safe_name("exhibit", row["recipe"], row["file"]),
            caption=f"{row['title']}. {row['caption']}",
            empty="No row in this run.",
            hide=(row["hidden_columns"] or "").split(";"),
        )


def no_exhibits() -> Exhibits:
    """What a run has to which no stage handed anything."""
    from ospor_batch.contracts.table import empty

    return Exhibits(empty("exhibit"), {}, {})
