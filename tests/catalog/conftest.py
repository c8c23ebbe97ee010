"""Instance rows of generated DICOM files, and the series that they become."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from ospor_batch.archive.header import read_header
from ospor_batch.catalog.quality import DOUBTFUL, REMARKS, UNUSABLE
from ospor_batch.catalog.rules import Rules
from ospor_batch.catalog.series import Catalogued, catalog_center
from ospor_batch.contracts.table import conform, schema_of, whole
from ospor_batch.pseudonym import normal_patient_id, pseudonym
from tests.archive.made import encoded

KEY, SPLIT_KEY = b"test-key-0123456789", b"split-key-0123456789"
Catalogue = Callable[..., Catalogued]


def keyed(text: str | None, kind: str) -> str | None:
    return None if text is None else pseudonym(text, kind=kind, issuer="", key=KEY)


def tables(
    images: Mapping[str, Dataset], nifti: Mapping[str, str] | None = None, *, syntax: UID = ExplicitVRLittleEndian
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Instance and file rows of data sets by path; nifti: path to content digest."""
    instances, files = [], []
    for path, ds in images.items():
        content = encoded(ds, syntax=syntax)
        header = read_header(io.BytesIO(content))
        row = header.values
        keys = {
            "center": "north",
            "file_key": keyed(path, "file"),
            "folder_key": keyed(path.rpartition("/")[0], "folder"),
            "instance_key": keyed(row["sop_instance_uid"], "instance"),
            "series_key": keyed(row["series_instance_uid"], "series"),
            "study_key": keyed(row["study_instance_uid"], "study"),
            "patient_key": keyed(normal_patient_id(row["patient_id"]), "patient"),
            "size_bytes": len(content),
        }
        instances.append(row | keys)
        files.append(file_row(path, digest=header.content_digest, size=len(content)))
    files += [file_row(path, digest=digest, reason="nifti") for path, digest in (nifti or {}).items()]
    return (
        conform(pl.DataFrame(instances, schema=schema_of("instance"), orient="row"), "instance"),
        conform(pl.DataFrame(files, schema=schema_of("file"), orient="row"), "file"),
    )


def file_row(path: str, *, digest: str | None, reason: str | None = None, size: int = 1) -> dict[str, Any]:
    return {
        "center": "north",
        "file_key": keyed(path, "file"),
        "archive": "archives/north",
        "path": path,
        "folder_key": keyed(path.rpartition("/")[0], "folder"),
        "size_bytes": size,
        "mtime_ns": 1,
        "fate": "instance" if reason is None else "reject",
        "reason": reason,
        "content_digest": digest,
        "reader_version": "1",
    }


@pytest.fixture
def catalogue() -> Catalogue:
    """Catalogue data sets by path; every result keeps its contracts."""

    def run(
        images: Mapping[str, Dataset],
        *,
        nifti: Mapping[str, str] | None = None,
        syntax: str = ExplicitVRLittleEndian,
        rules: Rules | None = None,
    ) -> Catalogued:
        instances, files = tables(images, nifti, syntax=UID(syntax))
        key = KEY if rules else None
        found = catalog_center(instances, files, center="north", split_key=SPLIT_KEY, key=key, rules=rules)
        written = {
            "series": found.series,
            "locator": found.locator,
            "reject": found.rejects,
            "collision": found.collisions,
            "unlisted": found.unlisted,
        }
        for name, rows in written.items():
            assert whole(rows, name).height == rows.height
        assert int(found.series["n_instances"].sum()) + found.rejects.height == instances.height
        known = {*UNUSABLE, *DOUBTFUL, *REMARKS, ""}
        assert not {finding for told in found.series["findings"] for finding in told.split(";")} - known
        return found

    return run
