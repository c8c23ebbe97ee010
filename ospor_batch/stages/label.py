"""label: exports of a center to exams and events, exams to labels, and a reason for every row that became neither."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from typing import Any

import polars as pl

from ospor_batch.config import Center, Export, Reference, Study
from ospor_batch.contracts import contract
from ospor_batch.errors import StudyError
from ospor_batch.labels.cut_offs import cut_offs
from ospor_batch.labels.events import Events, inspect_events, read_events, settle_events
from ospor_batch.labels.reference import Drawn, check_reference, draw
from ospor_batch.labels.table_export import Settled, inspect_export, read_export, settle
from ospor_batch.pseudonym import Linkage
from ospor_batch.stages.site_rules import read_linkage
from ospor_batch.stages.summary import StageSummary
from ospor_batch.store import Store, SweepCounts


def label(study: Study, center: str, *, store: Store, key: bytes) -> StageSummary:
    """Read the exports and event files of a center and commit what changed; rows = exams and events + rejects.

    A center without exports has no labels: its people are scored without one.
    """
    of = study.center(center)
    with store.lock():
        linkage = read_linkage(study)
        settled = _exams(study, of, key=key, linkage=linkage)
        events = _events(study, of, key=key, linkage=linkage)
        drawn = {r.id: draw(settled.exams, r, key=key) for r in study.references}
        _commit(store, center, settled=settled, events=events, drawn=drawn)
    n_rows = settled.n_rows + events.n_rows
    n_refused = settled.rejects.height + events.rejects.height
    return StageSummary(
        stage="label",
        center=center,
        level="export_row",
        requested=n_rows,
        done=n_rows - n_refused,
        excluded=n_refused,
        failed=0,
        notes=(
            ("exams", settled.exams.height),
            ("events", events.events.height),
            *((f"labels:{name}", of_reference.labels.height) for name, of_reference in drawn.items()),
            *((f"exams refused:{name}", of_reference.rejects.height) for name, of_reference in drawn.items()),
            *(note for name, of_reference in drawn.items() for note in _recomputed(name, of_reference.labels)),
        ),
        remarks=tuple(said for r in study.references if (said := _shares(r, drawn[r.id].labels)) is not None),
    ).check()


def _recomputed(name: str, labels: pl.DataFrame) -> list[tuple[str, int]]:
    """Beside the reported classes: how many labels T could be recomputed for, and whose class that would move."""
    known = labels.filter(pl.col("category_recomputed").is_not_null())
    if not known.height:
        return []
    moved = known.filter(pl.col("category_recomputed") != pl.col("category"))
    return [(f"T recomputed:{name}", known.height), (f"class would move:{name}", moved.height)]


def _shares(reference: Reference, labels: pl.DataFrame) -> str | None:
    """The share of each class, and of the labels whose class a recomputed T would move; null without classes."""
    known = labels.filter(pl.col("is_osteoporosis").is_not_null())
    if not known.height:
        return None
    counts = known["category"].value_counts().sort("count", "category", descending=[True, False]).iter_rows()
    said = ", ".join(f"{n / known.height:.0%} {name.replace('_', ' ')}" for name, n in counts)
    counted = dict(_recomputed(reference.id, labels))
    if counted:
        n, moved = counted.values()
        said += (
            f"; T recomputed from BMD by {reference.compare_with} would move {moved} of {n} ({moved / n:.0%}) to another class"
        )
    return f"{reference.id}: of {known.height} labels {said}"


def check_exports(study: Study) -> list[str]:
    """Every fault of exports, event files and references that can be known before work; raises nothing of ours."""
    faults: list[str] = []
    today = _today()
    for reference in study.references:
        try:
            check_reference(reference)
        except StudyError as error:
            faults.append(str(error))
    for center in study.centers:
        found = [(e.path, inspect_export(study.resolve(e.path), e, today=today)) for e in center.exports]
        found += [(e.path, inspect_events(study.resolve(e.path), e)) for e in center.events]
        for path, report in found:
            faults += [f"{center.name}: {problem}" for problem in report.problems]
            # a file of which no row can be used is a fault of its map, not of its rows
            if report.n_rows and sum(n for _, n, _ in report.refused) == report.n_rows:
                said = "; ".join(f"{reason} {n} ({first})" for reason, n, first in report.refused)
                faults.append(f"{center.name}: {path}: none of its {report.n_rows} rows can be used: {said}")
    return faults


def table_of_cut_offs(standard: str | None = None) -> list[dict[str, Any]]:
    """Rows of the cut_off contract, of one standard or of all; StudyError for a standard that has none."""
    rows = cut_offs()
    known = rows["standard"].unique().sort().to_list()
    if standard is not None and standard not in known:
        raise StudyError(f"no standard {standard!r}; expected one of {', '.join(known)}")
    return rows.to_dicts() if standard is None else rows.filter(pl.col("standard") == standard).to_dicts()


def preview(study: Study, *, n_rows: int = 20) -> list[dict[str, Any]]:
    """The first rows of every export as they are read: what becomes of each, without numbers, names and dates."""
    told: list[dict[str, Any]] = []
    for center in study.centers:
        for export in center.exports:
            read = read_export(study.resolve(export.path), export, center=center.name, key=b"", today=_today())
            settled = settle([read], center=center.name)
            measured = {
                c: d for c, d in settled.exams.schema.items() if d.is_numeric() and c not in {"row_number", "n_export_rows"}
            }
            for row in settled.exams.sort("row_number").head(n_rows).iter_rows(named=True):
                values = {c: row[c] for c in (*measured, "sex", "densitometer_vendor", "flags") if row[c] not in {None, ""}}
                told.append(
                    {"center": center.name, "export": export.path, "row": row["row_number"], "becomes": "exam", **values}
                )
            refused = settled.rejects.with_columns(row=pl.col("item_key").str.extract(r":(\d+)$").cast(pl.Int64)).sort("row")
            early = refused.filter(pl.col("row") <= n_rows + 1).select("row", becomes="reason", detail="detail")
            told += [{"center": center.name, "export": export.path, **row} for row in early.iter_rows(named=True)]
    return sorted(told, key=lambda row: (row["center"], row["export"], row["row"]))


def _exams(study: Study, center: Center, *, key: bytes, linkage: Linkage) -> Settled:
    today = _today()
    read = [
        read_export(study.resolve(export.path), export, center=center.name, key=key, today=today, scope=scope, linkage=linkage)
        for export, scope in zip(center.exports, _scopes(center), strict=True)
    ]
    return settle(read, center=center.name)


def _events(study: Study, center: Center, *, key: bytes, linkage: Linkage) -> Events:
    read = [read_events(study.resolve(e.path), e, center=center.name, key=key, linkage=linkage) for e in center.events]
    return settle_events(read, center=center.name)


def _scopes(center: Center) -> list[str]:
    """What the rejects of each export are filed under: its path, with sheet and kind where exports share a file."""
    used = Counter([*(e.path for e in center.exports), *(e.path for e in center.events)])

    def scope(export: Export) -> str:
        return export.path if used[export.path] == 1 else f"{export.path}[{export.sheet or export.kind}]"

    scopes = [scope(export) for export in center.exports]
    if twice := sorted(name for name, n in Counter(scopes).items() if n > 1):
        raise StudyError(f"centers.{center.name}.exports names {twice[0]!r} twice; give each its own file, sheet or kind")
    return scopes


def _commit(store: Store, center: str, *, settled: Settled, events: Events, drawn: dict[str, Drawn]) -> None:
    here = pl.col("center") == center
    refused = [settled.rejects, events.rejects, *(of.rejects for of in drawn.values())]
    rejects = pl.concat(refused).sort(list(contract("reject").primary_key))
    labels = pl.concat([of.labels for of in drawn.values()]).sort(list(contract("label").primary_key))
    changes = {
        "exam": store.difference("exam", settled.exams, scope=here),
        "event": store.difference("event", events.events, scope=here),
        "label": store.difference("label", labels, scope=here),
        "reject": store.difference("reject", rejects, scope=here & (pl.col("stage") == "label")),
    }
    exams, retired = changes["exam"].rows, changes["exam"].retired
    known = store.current("exam", center=center, columns=["center", "exam_key"])
    n_changed = exams.join(known, on=["center", "exam_key"], how="semi").height
    counts = SweepCounts(
        n_new=exams.height - n_changed,
        n_changed=n_changed,
        n_vanished=0 if retired is None else retired.height,
        n_unchanged=settled.exams.height - exams.height,
        n_read=settled.n_rows + events.n_rows,
    )
    store.commit(changes, stage="label", center=center, counts=counts)


def _today() -> date:
    return datetime.now().astimezone().date()
