"""What must become of each generated file: its fate at the crawl and in the catalog."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from ospor_batch.contracts.table import schema_of, whole
from ospor_batch.pseudonym import normal_patient_id
from ospor_batch.synthetic.patient_files import FileOut
from ospor_batch.synthetic.population import Person


def truth_row(person: Person, file: FileOut) -> dict[str, Any]:
    """One file as a row of the contract."""
    is_instance = file.refusal is None
    return {
        "center": person.center,
        "path": file.path,
        "patient_id": None if file.kind == "foreign" else normal_patient_id(person.patient_id),
        "kind": file.kind,
        "sop_instance_uid": file.sop_uid,
        "size_bytes": len(file.content),
        "fault": person.fault,
        "night": person.night,
        "expected_crawl": "instance" if is_instance else "reject",
        "expected_crawl_reason": file.refusal,
        "expected_catalog": None if not is_instance else "one_of_copies" if file.copies else "series",
        "expected_catalog_reason": file.copies if is_instance else None,
    }


def truth_file_table(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """One row a file, by center and path."""
    table = pl.DataFrame(list(rows), schema=schema_of("truth_file"), orient="row")
    return whole(table.sort("center", "path"), "truth_file")
