"""Given these rows of an event file, these events are kept."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from ospor_batch.config import EventFile
from ospor_batch.contracts.table import whole
from ospor_batch.errors import ArchiveError, StudyError
from ospor_batch.labels.events import Events, inspect_events, read_events, settle_events
from tests.labels.conftest import Write

HEADER = ("MRN", "Event", "From", "To")
COLUMNS = {"patient_id": "MRN", "code": "Event", "start": "From", "end": "To"}
CODES = {"fracture": ("골절", "hip fx"), "bone_drug": ("M05BA04",)}


def source(**changes: Any) -> EventFile:
    return EventFile(**{"path": "events.csv", "columns": COLUMNS, "codes": CODES, **changes})


def found(path: Path, key: bytes, **changes: Any) -> Events:
    return settle_events([read_events(path, source(**changes), center="north", key=key)], center="north")


def test_every_row_is_an_event_or_a_reject(write: Write, key: bytes) -> None:
    path = write(
        HEADER,
        ("P1", "Hip  FX", "2022-01-05", ""),
        ("P1", "골절", "2022-01-05", ""),
        (" p1", "bone_drug", "2020-01-01", "2021-01-01"),
        ("P1", "M05BA04", "2020-01-01", "2022-01-01"),
        ("", "fracture", "2022-01-05", ""),
        ("P2", "headache", "2022-01-05", ""),
        ("P2", "fracture", "", ""),
        ("P2", "fracture", "2022-02-30", ""),
        ("P2", "fracture", "2022-02-03", "2022-02-01"),
    )
    events = found(path, key)
    whole(events.events, "event")
    whole(events.rejects, "reject")
    assert events.n_rows == 9
    assert sorted(events.events.select("row_number", "code", "end_date").rows()) == [
        (2, "fracture", None),
        (5, "bone_drug", datetime.date(2022, 1, 1)),
    ]
    assert {int(k.rsplit(":", 1)[1]): r for k, r in events.rejects.select("item_key", "reason").rows()} == {
        3: "duplicate_event", 4: "duplicate_event", 6: "missing_patient_id", 7: "unknown_event_code", 8: "missing_date",
        9: "invalid_date", 10: "invalid_date",
    }  # fmt: skip


def test_a_wrong_map_or_file_is_named(write: Write, key: bytes, tmp_path: Path) -> None:
    path = write(HEADER)
    with pytest.raises(StudyError, match=r"columns\.start is 'Begin'.*its columns not in the map are From"):
        found(path, key, columns={**COLUMNS, "start": "Begin"})
    with pytest.raises(StudyError, match="codes has no 'frcture'"):
        found(path, key, codes={"frcture": ("x",)})
    with pytest.raises(ArchiveError, match=r"events\.csv: no such file"):
        found(tmp_path / "none.csv", key)
    assert inspect_events(tmp_path / "none.csv", source()).problems
    assert inspect_events(write(HEADER, ("P", "x", "2022-01-01", "")), source()).refused[0][:2] == ("unknown_event_code", 1)


def test_no_event_files_are_no_events() -> None:
    assert settle_events([], center="north").n_rows == 0
