"""What the flow of a generated study must be, worked out from its truth and its files without any stage of ours.

Files are told apart by their first bytes and read by pydicom; who leaves at which step comes from the truth alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pydicom

from ospor_batch.pseudonym import normal_patient_id, split_position
from ospor_batch.synthetic.labels import exams_of
from ospor_batch.synthetic.population import Person

Left = Counter[tuple[str, str, str, str]]  # (center, level, step, reason) -> how many left
BASE = ["image of a patient", "CT", "no localizer", "original axial", "readable stack", "image date in the study period"]
CRITERIA = ["age 50 or older", "age 50 or older: unknown", "unenhanced", "unenhanced: unknown", "120 kV", "120 kV: unknown"]
STEPS = [*BASE, *CRITERIA]
REASONS = {
    "image of a patient": "not_an_image",
    "CT": "not_ct",
    "no localizer": "localizer",
    "original axial": "derived_or_not_axial",
    "readable stack": "unusable_stack",
    "image date in the study period": "outside_image_dates",
    "age 50 or older": "age_50_or_older",
    "age 50 or older: unknown": "age_50_or_older_unknown",
    "unenhanced": "unenhanced",
    "unenhanced: unknown": "unenhanced_unknown",
    "120 kV": "120_kv",
    "120 kV: unknown": "120_kv_unknown",
}
CONTRAST_SERIES = 3  # the number that the generator gives to a contrast series beside a plain one


@dataclass(frozen=True)
class Header:
    """What pydicom says of one readable file."""

    center: str
    person: str
    study: str
    series: str
    instance: str
    modality: str
    image_type: tuple[str, ...]
    series_number: int


@dataclass(frozen=True)
class Archive:
    """Every file of the generated archives: read, or left for a reason."""

    headers: list[Header]
    refused: Left
    n_files: Counter[str]


def read_archives(root: Path, truth: pl.DataFrame) -> Archive:
    headers: list[Header] = []
    refused: Left = Counter()
    n_files: Counter[str] = Counter()
    faults = truth.filter(pl.col("fault").str.starts_with("truncated_")).group_by("center").len()
    for center, n in faults.iter_rows():
        refused[center, "file", "complete", "truncated"] += n
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        center = path.relative_to(root).parts[0]
        n_files[center] += 1
        body = path.read_bytes()
        if not body:
            refused[center, "file", "not empty", "empty_file"] += 1
        elif body[:2] == b"\x1f\x8b":
            refused[center, "file", "no NIfTI volume or mask", "nifti"] += 1
        elif body[128:132] != b"DICM":
            refused[center, "file", "DICOM", "not_dicom"] += 1
        else:
            headers += _header(path, center)
    return Archive(headers, refused, n_files)


def _header(path: Path, center: str) -> list[Header]:
    try:
        ds = pydicom.dcmread(path)
        _ = ds.SeriesInstanceUID, (ds.pixel_array if ds.Modality not in {"SEG", "SR"} else None)
    except Exception:  # noqa: BLE001 -- the files that were cut off on purpose; their number comes from the truth
        return []
    person = normal_patient_id(str(ds.PatientID)) or ""
    kind = (ds.Modality, tuple(ds.get("ImageType") or ()), int(ds.SeriesNumber))
    return [Header(center, person, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, *kind)]


def step_of(header: Header, truth: dict[tuple[str, str], dict[str, object]]) -> str | None:
    """The step at which a series must leave; None when it stands for its person."""
    if header.modality in {"SEG", "SR"} or "SCREEN SAVE" in header.image_type:
        return "image of a patient"
    if header.modality in {"CR", "DX"}:
        return "CT"
    if "LOCALIZER" in header.image_type:
        return "no localizer"
    if "REFORMATTED" in header.image_type:
        return "original axial"
    planted = truth[header.center, header.person]
    is_beside = header.series_number == CONTRAST_SERIES and planted["fault"] == "contrast_beside"
    if is_beside or "VOLUME" in header.image_type:  # the multi-frame volume is the one with contrast
        return "unenhanced"
    step = planted["expected_step"]
    return None if step is None else str(step)


def left_in_catalog(archive: Archive, truth: pl.DataFrame) -> Left:
    """Files and instances that must leave before any recipe."""
    left: Left = Counter(archive.refused)
    copies = Counter(h.instance for h in archive.headers)
    centers = {h.instance: h.center for h in archive.headers}
    changed = {
        (c, p) for c, p in truth.filter(pl.col("fault") == "duplicate_different_content").select("center", "patient_id").rows()
    }
    persons = {h.instance: h.person for h in archive.headers}
    for instance, n in copies.items():
        if n > 1:
            is_changed = (centers[instance], persons[instance]) in changed
            step = ("UID used once", "duplicate_different_content") if is_changed else ("not a copy", "duplicate_same_content")
            left[centers[instance], "instance", *step] += n - 1
    rejected = {
        "invalid_date": ("date valid", "invalid_date"),
        "impossible_bmd": ("values possible", "impossible_value"),
        "duplicate_exam": ("not a copy", "duplicate_exam"),
    }
    for center, fault in truth.select("center", "fault").iter_rows():
        if fault in rejected:
            left[center, "export_row", *rejected[fault]] += 1
    return left


def left_as_too_young(people: Sequence[Person]) -> Left:
    """Exams with T-scores of people under 50 at the exam (methods L3); rows refused in the export never become exams."""
    return Counter(
        (person.center, "exam", "WHO classes apply", "who_not_applicable")
        for person in people
        if person.fault not in {"invalid_date", "impossible_bmd"}
        for exam in exams_of(person)
        if exam.t and exam.age < 50
    )


def left_in_recipe(archive: Archive, truth: pl.DataFrame, *, seed_key: bytes, tuning: float) -> Left:
    """Series, studies and persons that must leave under the DXA recipe, down to the table."""
    known = {(r["center"], r["patient_id"]): r for r in truth.iter_rows(named=True)}
    series = {h.series: h for h in archive.headers}
    left: Left = Counter()
    units: dict[str, dict[tuple[str, str], list[str | None]]] = {"study": {}, "person": {}}
    for header in series.values():
        step = step_of(header, known)
        if step is not None:
            left[header.center, "series", step, REASONS[step]] += 1
        units["study"].setdefault((header.center, header.study), []).append(step)
        units["person"].setdefault((header.center, header.person), []).append(step)
    for level, members in units.items():
        for (center, _), steps in members.items():
            if None not in steps:  # the step that takes the last series of it
                last = max((s for s in steps if s is not None), key=STEPS.index)
                left[center, level, last, REASONS[last]] += 1
    for (center, patient_id), person in known.items():
        if person["expected_role"] == "excluded":
            continue
        position = split_position(patient_id, center=center, key=seed_key)
        _after_matching(left, person, is_tuning=center != "east" and position < tuning)
    return left


def _after_matching(left: Left, person: dict[str, object], *, is_tuning: bool) -> None:
    center, is_paired = str(person["center"]), person["expected_role"] == "paired"
    if not is_paired:
        reason = "label_outside_window" if person["fault"] == "label_outside_window" else "no_label"
        left[center, "person", "label in the window", reason] += 1
    if not person["expected_prediction"]:
        left[center, "series", "scored by the predictor", "mask_missing"] += 1
        if is_paired:
            left[center, "person", "scored by the predictor", "mask_missing"] += 1
        return
    if is_tuning:
        left[center, "series", "in a test partition", "train_or_tuning"] += 1
        if is_paired:
            left[center, "person", "in a test partition", "train_or_tuning"] += 1
    elif not is_paired:
        left[center, "series", "matched index series", "prevalence_index_only"] += 1
