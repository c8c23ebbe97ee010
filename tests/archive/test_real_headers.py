"""Real files: every one an instance or a typed reject, and instances say what the manifest of the files says."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path

import pydicom
import pytest

from ospor_batch.archive.frames import CLASSES
from ospor_batch.archive.header import Header, read_header
from ospor_batch.archive.walk import walk
from ospor_batch.errors import ItemRefused
from ospor_batch.sources import local_path

Outcome = tuple[Header | None, ItemRefused | None]
REASONS = {"empty_file", "not_dicom", "nifti", "dicomdir", "truncated", "broken_header", "missing_uid"}


@pytest.fixture(scope="module")
def real(shared: Path) -> Path:
    folder = shared / "data" / "real"
    if not folder.is_dir():
        pytest.skip(f"no real files at {folder}")
    return folder


@pytest.fixture(scope="module")
def outcomes(real: Path) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for listed in walk(real):
        try:
            found[listed.path] = read_header(io.BytesIO(local_path(real, listed.path).read_bytes())), None
        except ItemRefused as refused:
            found[listed.path] = None, refused
    return found


@pytest.fixture(scope="module")
def manifest(real: Path) -> list[dict[str, str]]:
    with (real / "MANIFEST.csv").open(newline="", encoding="utf-8") as rows:
        return list(csv.DictReader(rows))


def test_real_files_are_all_accounted_for(outcomes: dict[str, Outcome], real: Path) -> None:
    assert len(outcomes) == sum(path.is_file() for path in real.rglob("*"))
    for header, refused in outcomes.values():
        assert (header is None) != (refused is None)
        assert refused is None or refused.reason in REASONS


def test_real_instances_say_what_the_manifest_says(outcomes: dict[str, Outcome], manifest: list[dict[str, str]]) -> None:
    columns = {"modality": "modality", "manufacturer": "manufacturer", "transfer_syntax": "transfer_syntax_uid"}
    compared = 0
    for row in manifest:
        header, _ = outcomes[row["path"]]
        if header is None:
            continue
        for told, ours in {**columns, "rows": "rows", "cols": "columns", "photometric": "photometric_interpretation"}.items():
            if row[told]:
                assert str(header.values[ours]) == row[told].strip(), (row["path"], told)
                compared += 1
    assert compared > 0


def test_real_files_whose_pixels_decode_are_not_called_truncated(
    outcomes: dict[str, Outcome], manifest: list[dict[str, str]]
) -> None:
    for row in manifest:
        _, refused = outcomes[row["path"]]
        if row["pixel_check"] == "ok":
            assert refused is None or refused.reason in {"missing_uid", "dicomdir"}, row["path"]


def test_real_nifti_files_are_known_by_content(outcomes: dict[str, Outcome], manifest: list[dict[str, str]]) -> None:
    for row in manifest:
        header, refused = outcomes[row["path"]]
        is_nifti = row["path"].endswith((".nii", ".nii.gz"))
        assert is_nifti == (header is None and refused is not None and refused.reason == "nifti"), row["path"]


def test_real_values_equal_those_of_pydicom(real: Path, outcomes: dict[str, Outcome]) -> None:
    keywords = {"PatientID": "patient_id", "BodyPartExamined": "body_part_examined", "SeriesDescription": "series_description"}
    for path, (header, _) in outcomes.items():
        if header is None or "charset" in header.values["header_flags"] or header.values["sop_class_uid"] in CLASSES:
            continue  # an enhanced image tells some of this of its frames
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the files are faulty on purpose
            ds = pydicom.dcmread(local_path(real, path), stop_before_pixels=True, force=True)
            wanted = {keyword: str(ds.get(keyword) or "").strip() if keyword in ds else None for keyword in keywords}
        assert {keyword: header.values[column] for keyword, column in keywords.items()} == wanted, path
