"""The release of a run: tables, figures and notes that may leave the hospital, with checksums and a private register."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from ospor_batch.config import Study
from ospor_batch.contracts.table import empty, schema_of
from ospor_batch.evaluation import release_tables as made
from ospor_batch.evaluation.disclosure import Plan, moved_too_little, plan_release
from ospor_batch.report.figures import Picture
from ospor_batch.report.release_figures import release_pictures
from ospor_batch.report.release_notes import Noted, header, header_text, readme
from ospor_batch.runs import Run
from ospor_batch.stages.evaluate import csv_text
from ospor_batch.store import Store, read_part, storage_errors, write_part, write_text

SOURCES = (*(name for name in made.DROPPED if name != "rejects_summary"), "reject_count")
STEMS = {"reject_count": "rejects_by_reason"}
EPOCH = datetime(2000, 1, 1, tzinfo=UTC).replace(tzinfo=None)  # a workbook must not hold the clock
PNG_DPI = 200


def release(study: Study, run: Run, *, store: Store) -> Path:
    """Write release/ of a run whole, or leave the one that was there.

    When counts that the last release printed moved by fewer than the smallest cell and are not rounded, the tables of
    that release are written again: two versions would give the difference away.
    """
    frames = {name: _frame(run, name) for name in SOURCES}
    rules = made.Rules(study.tables.smallest_cell, study.tables.round_to, study.analysis.ppv_prevalence)
    register = store.private / "releases" / study.study.name / "cells.parquet"
    last = _registered(register, but_not=run.run_id)
    plan = plan_release(frames, smallest=rules.smallest, last=last)
    is_rounded = rules.base >= rules.smallest
    held = None if is_rounded or not moved_too_little(plan, last, smallest=rules.smallest) else _last_run(register)
    target, unfinished = run.folder / "release", run.folder / f".release.{os.getpid()}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        if held is not None and (run.folder.parent / held / "release").is_dir():
            _again(study, run, held=held, source=run.folder.parent / held / "release", into=unfinished)
        else:
            _fresh(study, run, frames, plan, rules=rules, into=unfinished)
        with storage_errors():
            shutil.rmtree(target, ignore_errors=True)
            unfinished.replace(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if held is None:
        _register(plan, register, run_id=run.run_id)
    return target


def _fresh(study: Study, run: Run, frames: dict[str, pl.DataFrame], plan: Plan, *, rules: made.Rules, into: Path) -> None:
    tables = made.released_tables(frames, plan, rules=rules)
    said = {name: str(run.record[name]) for name in ("run_id", "code_version")}
    write_text(
        header_text(header(study, run=said, threshold=frames["threshold"], tables=tuple(made.DROPPED))),
        target=into / "release.json",
    )
    for table in tables:
        write_text(csv_text(table.marked()), target=into / "tables" / f"{table.name}.csv")
        _bytes(into / "tables" / f"{table.name}.parquet", _parquet(table, run_id=run.run_id))
    _bytes(into / "tables" / "tables.xlsx", _workbook(tables))
    for picture in release_pictures(study, {table.name: table.rows for table in tables}):
        _draw(picture, into / "figures")
    _notes(study, tables, run_id=run.run_id, held=None, into=into)


def _notes(study: Study, tables: Sequence[made.Released], *, run_id: str, held: str | None, into: Path) -> None:
    said = []
    for table in tables:
        metrics = table.rows["metric"].unique().sort().to_list() if "metric" in table.rows.columns else []
        said.append(Noted(table.name, tuple(table.rows.columns), tuple(metrics), table.rows.height, table.n_withheld))
    text = readme(study, said, left_out=made.NOT_RELEASED, run_id=run_id, held=held)
    write_text(text, target=into / "README.md")
    _checksums(into)


def _again(study: Study, run: Run, *, held: str, source: Path, into: Path) -> None:
    """The last release once more, with a README that says so; its header keeps the run that the numbers are from."""
    with storage_errors():
        shutil.copytree(source, into)
    tables = [
        made.Released(path.stem, None, pl.read_parquet(path), _n_withheld(pl.read_parquet(path)))
        for path in sorted((into / "tables").glob("*.parquet"))
    ]
    _notes(study, tables, run_id=run.run_id, held=held, into=into)


def _n_withheld(rows: pl.DataFrame) -> int:
    return sum(len(said.split(";")) for said in rows[made.WITHHELD] if said)


def _frame(run: Run, name: str) -> pl.DataFrame:
    stem = STEMS.get(name)
    rows = run.read(name, under="tables", stem=stem) if run.has(name, under="tables", stem=stem) else empty(name)
    # rows of several images a person are other counts of the same people: they would be differences
    return rows.filter(pl.col("unit") == "person") if "unit" in rows.columns else rows


def _registered(register: Path, *, but_not: str) -> dict[str, tuple[int, bool]]:
    """Cells of the last release of another run; a run that is released again is not compared with itself."""
    if not register.is_file() or _last_run(register) == but_not:
        register = register.with_name("cells_before.parquet")
    if not register.is_file():
        return {}
    rows = read_part("release_cell", source=register)
    return {name: (n, is_withheld) for name, n, is_withheld in rows.select("cell", "n", "is_withheld").iter_rows()}


def _last_run(register: Path) -> str | None:
    from pyarrow import parquet  # late: 0.1 s

    register = register if register.is_file() else register.with_name("cells_before.parquet")
    if not register.is_file():
        return None
    found = parquet.read_metadata(register).metadata or {}
    return str(found.get(b"run_id", b"").decode()) or None


def _register(plan: Plan, register: Path, *, run_id: str) -> None:
    """Keep the exact counts behind the release, and those before it, under private/."""
    if register.is_file() and _last_run(register) != run_id:
        with storage_errors():
            register.replace(register.with_name("cells_before.parquet"))
    rows = [{"cell": name, "n": n, "is_withheld": name in plan.withheld_names} for name, n in sorted(plan.counts.items())]
    frame = pl.DataFrame(rows, schema=schema_of("release_cell"))
    write_part(frame, "release_cell", target=register, stamp={"run_id": run_id})


def _parquet(table: made.Released, *, run_id: str) -> bytes:
    out = io.BytesIO()
    table.rows.write_parquet(out, metadata={"contract": table.contract or "", "run_id": run_id, "release": "1"})
    return out.getvalue()


def _workbook(tables: Sequence[made.Released]) -> bytes:
    """One sheet a table; text stays text, so that nothing runs as a formula."""
    import xlsxwriter  # late: 0.2 s

    out = io.BytesIO()
    book = xlsxwriter.Workbook(out, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    book.set_properties({"created": EPOCH})
    bold = book.add_format({"bold": True})
    for table in tables:
        sheet = book.add_worksheet(table.name[:31])  # Excel's limit of a sheet's name
        rows = table.marked()
        sheet.write_row(0, 0, rows.columns, bold)
        sheet.freeze_panes(1, 0)
        for i, row in enumerate(rows.iter_rows(), start=1):
            for j, value in enumerate(row):
                _cell(sheet, i, j, value=value)
    book.close()
    return out.getvalue()


def _cell(sheet: Any, row: int, column: int, *, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif isinstance(value, int | float):
        sheet.write_number(row, column, value)
    elif str(value).lstrip("-").replace(".", "", 1).isdigit():
        sheet.write_number(row, column, float(value))  # a number whose column also holds the word withheld
    else:
        sheet.write_string(row, column, str(value))


def _draw(picture: Picture, folder: Path) -> None:
    write_text(picture.svg, target=folder / f"{picture.name}.svg")
    for kind in ("png", "pdf"):
        _bytes(folder / f"{picture.name}.{kind}", picture.printed(kind, dpi=PNG_DPI))


def _bytes(target: Path, body: bytes) -> None:
    with storage_errors(remove=target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)


def _checksums(folder: Path) -> None:
    target = folder / "checksums.txt"
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != target)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}" for path in files]
    write_text("\n".join(lines) + "\n", target=target)
