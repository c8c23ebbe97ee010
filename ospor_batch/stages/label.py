"""label: exports of a center to exams and events, exams to labels, and a reason for every row that became neither."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime

import polars as pl

from ospor_batch.config import Center, Export, Study
from ospor_batch.contracts import contract
from ospor_batch.errors import StudyError
from ospor_batch.labels.events import Events, inspect_events, read_events, settle_events
from ospor_batch.labels.reference import Drawn, check_reference, draw
from ospor_batch.labels.table_export import Settled, inspect_export, read_export, settle
from ospor_batch.stages.summary import StageSummary
from ospor_batch.store import Store, SweepCounts


def label(study: Study, center: str, *, store: Store, key: bytes) -> StageSummary:
    """Read the exports and event files of a center and commit what changed; rows = exams and events + rejects.

    A center without exports has no labels: its people are scored without one.
    """
    of = study.center(center)
    with store.lock():
        settled = _exams(study, of, key=key)
        events = _events(study, of, key=key)
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
        ),
    ).check()


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


def _exams(study: Study, center: Center, *, key: bytes) -> Settled:
    today = _today()
    read = [
        read_export(study.resolve(export.path), export, center=center.name, key=key, today=today, scope=scope)
        for export, scope in zip(center.exports, _scopes(center), strict=True)
    ]
    return settle(read, center=center.name)


def _events(study: Study, center: Center, *, key: bytes) -> Events:
    read = [read_events(study.resolve(e.path), e, center=center.name, key=key) for e in center.events]
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
