"""Every planted fault is really there, seen by readers that know nothing of the generator."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from ospor_batch.pseudonym import normal_patient_id
from ospor_batch.synthetic.faults import FAULTS, NO_FAULT
from tests.synthetic.conftest import Found, Generated


def positions(files: list[Found]) -> list[float]:
    return sorted(float(f.header.ImagePositionPatient[2]) for f in files)


def series_of(files: list[Found]) -> dict[str, list[Found]]:
    found: dict[str, list[Found]] = {}
    for file in files:
        found.setdefault(file.header.SeriesInstanceUID, []).append(file)
    return found


def test_each_fault_is_carried_by_one_person(tiny: Generated) -> None:
    carried = Counter(tiny.truth["fault"])
    del carried[NO_FAULT]
    assert carried == Counter(fault.name for fault in FAULTS)
    for fault in FAULTS:
        person = tiny.person(fault.name)
        expected = (fault.center, fault.role, fault.step, fault.is_predicted)
        told = (person["center"], person["expected_role"], person["expected_step"], person["expected_prediction"])
        assert told == expected


def test_people_without_a_fault_have_whole_series(tiny: Generated) -> None:
    for row in tiny.truth.filter((tiny.truth["fault"] == NO_FAULT) & tiny.truth["kvp_kv"].is_not_null()).iter_rows(named=True):
        files = [f for f in tiny.files[row["center"], row["patient_id"]] if f.header.Modality == "CT"]
        (series,) = series_of(files).values()
        steps = np.diff(positions(series))
        assert np.allclose(steps, steps[0], atol=1e-3)


def test_truncated_header(tiny: Generated) -> None:
    (cut,) = [p for p in tiny.unreadable if p.stat().st_size == 500]
    assert cut.read_bytes()[128:132] == b"DICM"
    steps = np.diff(positions(tiny.files_of("truncated_header")))
    assert round(steps.max() / steps.min()) == 2


def test_truncated_pixels(tiny: Generated) -> None:
    files = tiny.files_of("truncated_pixels")
    whole = files[0].header
    short = [f for f in files if len(f.header.get("PixelData", b"")) != whole.Rows * whole.Columns * 2]
    assert len(short) == 1
    sizes = {f.path.stat().st_size for f in files if f is not short[0]}
    assert short[0].path.stat().st_size < min(sizes) - 2000
    with pytest.raises((ValueError, AttributeError)):
        _ = short[0].header.pixel_array


def test_missing_slice(tiny: Generated) -> None:
    steps = np.diff(positions(tiny.files_of("missing_slice")))
    assert sorted(np.round(steps / steps.min()).astype(int))[-2:] == [1, 2]


def test_duplicates(tiny: Generated) -> None:
    for fault, same in (("duplicate_same_content", True), ("duplicate_different_content", False)):
        twins: dict[str, list[Found]] = {}
        for file in tiny.files_of(fault):
            twins.setdefault(file.header.SOPInstanceUID, []).append(file)
        twice = [pair for pair in twins.values() if len(pair) == 2]
        assert len(twice) == 3
        for a, b in twice:
            assert a.path.parent != b.path.parent
            assert (a.path.read_bytes() == b.path.read_bytes()) is same
            assert (a.header.pixel_array == b.header.pixel_array).all()


def test_scout_stands_beside_the_axial_series(tiny: Generated) -> None:
    series = series_of(tiny.files_of("scout_beside")).values()
    kinds = {tuple(files[0].header.ImageType)[2]: len(files) for files in series}
    assert kinds["LOCALIZER"] == 1
    assert kinds["AXIAL"] > 20


def test_contrast(tiny: Generated) -> None:
    assert all(f.header.ContrastBolusAgent.startswith("Io") for f in tiny.files_of("contrast_only"))
    beside = series_of(tiny.files_of("contrast_beside")).values()
    assert sorted(files[0].header.ContrastBolusAgent for files in beside) == ["Iohexol 350", "NONE"]
    assert {f.header.ContrastBolusAgent for f in tiny.files_of("contrast_tag_empty")} <= {"", None}
    assert not any("ContrastBolusAgent" in f.header for f in tiny.files_of("korean_name"))


def test_tube_voltage(tiny: Generated) -> None:
    assert {float(f.header.KVP) for f in tiny.files_of("kvp_100_only")} == {100.0}
    assert {float(f.header.KVP) for f in tiny.files_of("chinese_name")} == {120.0}


def test_radiograph_only(tiny: Generated) -> None:
    assert not tiny.files_of("radiograph_only")
    (film,) = tiny.files_of("radiograph_only", modality="DX")
    assert film.header.ViewPosition == "PA"
    assert film.header.PhotometricInterpretation == "MONOCHROME1"


def test_a_lateral_view_lies_beside_the_frontal_one(tiny: Generated) -> None:
    films = [f.header for m in ("CR", "DX") for f in tiny.files_of("lateral_beside", modality=m)]
    assert sorted((f.ViewPosition, f.PatientOrientation[0], f.SeriesNumber) for f in films) == [("LL", "P", 2), ("PA", "L", 1)]
    assert len({f.StudyInstanceUID for f in films}) == 1
    assert len({f.SeriesInstanceUID for f in films}) == len({f.SOPInstanceUID for f in films}) == 2
    truth = pl.read_parquet(tiny.folder / "truth_file.parquet").filter(pl.col("fault") == "lateral_beside")
    assert dict(truth["kind"].value_counts().rows())["lateral"] == 1


def test_ages(tiny: Generated) -> None:
    def years(file: Found) -> float:
        header = file.header
        born, taken = (datetime.strptime(day, "%Y%m%d") for day in (header.PatientBirthDate, header.AcquisitionDate))
        return (taken - born).days / 365.25

    assert years(tiny.files_of("under_50_at_image")[0]) < 49
    assert 50 < years(tiny.files_of("under_50_at_label")[0]) < 50.4
    unknown = tiny.files_of("age_unknown")[0].header
    assert not unknown.PatientBirthDate
    assert "PatientAge" not in unknown
    assert tiny.files_of("image_before_period")[0].header.AcquisitionDate < "20220101"


def test_patient_numbers(tiny: Generated) -> None:
    blanks = tiny.files_of("patient_id_blanks")[0].header.PatientID
    assert " " in blanks.strip()
    lower = tiny.files_of("patient_id_case")[0].header.PatientID
    assert lower == lower.lower() != lower.upper()
    assert normal_patient_id(lower) == tiny.person("patient_id_case")["patient_id"]
    east, west = ({number for center, number in tiny.files if center == name} for name in ("east", "west"))
    assert east & west, "equal numbers of two centers are two people"


def test_names_in_their_scripts(tiny: Generated) -> None:
    korean, chinese = tiny.files_of("korean_name")[0].header, tiny.files_of("chinese_name")[0].header
    assert list(korean.SpecificCharacterSet) == ["", "ISO 2022 IR 149"]
    assert all("\uac00" <= c <= "\ud7a3" for c in korean.PatientName.ideographic.replace("^", ""))
    assert chinese.SpecificCharacterSet == "GB18030"
    assert all("\u4e00" <= c <= "\u9fff" for c in chinese.PatientName.ideographic.replace("^", ""))


def test_missing_height_and_mask(tiny: Generated) -> None:
    assert "PatientSize" not in tiny.files_of("missing_height")[0].header
    folder = tiny.files_of("missing_mask")[0].path.parent
    assert not list(folder.glob("*.nii*"))


def test_files_that_are_no_dicom(tiny: Generated) -> None:
    west = tiny.folder / "archives" / "west"
    strangers = {p.name: p.read_bytes() for p in tiny.unreadable if p.parent == west}
    assert sorted(len(content) > 0 for content in strangers.values()) == [False, True, True]
    assert any(content.startswith(b"\x89PNG") for content in strangers.values())


def test_transfer_syntaxes(tiny: Generated) -> None:
    found = {f.header.file_meta.TransferSyntaxUID.name for files in tiny.files.values() for f in files}
    assert {"Explicit VR Little Endian", "Implicit VR Little Endian", "RLE Lossless"} <= found


def test_what_lies_beside_the_axial_series(tiny: Generated) -> None:
    (report,) = tiny.files_of("dose_report_beside", modality="SR")
    assert report.header.ConceptNameCodeSequence[0].CodeMeaning == "X-Ray Radiation Dose Report"
    (sheet,) = [
        f for f in tiny.files_of("dose_report_beside") if f.header.SOPClassUID.name == "Secondary Capture Image Storage"
    ]
    assert sheet.header.BurnedInAnnotation == "YES"
    assert set(np.unique(sheet.header.pixel_array)) == {0, 255}
    (screen,) = [f for f in tiny.files_of("capture_beside") if f.header.SeriesNumber == 99]
    assert screen.header.pixel_array.shape[2] == 3
    reformats = [f for f in tiny.files_of("coronal_beside") if "REFORMATTED" in f.header.ImageType]
    assert len({f.header.ImagePositionPatient[1] for f in reformats}) == len(reformats) > 10
    (whole,) = [f for f in tiny.files_of("enhanced_beside") if "NumberOfFrames" in f.header]
    assert whole.header.NumberOfFrames == len(tiny.files_of("enhanced_beside")) - 1


def test_extended_scale(tiny: Generated) -> None:
    header = tiny.files_of("extended_scale")[0].header
    assert (header.RescaleIntercept, header.PixelPaddingValue, header.BitsStored) == (-8192, 0, 16)
    assert header.pixel_array.max() > 8192


def test_absent_tags(tiny: Generated) -> None:
    assert {f.header.KVP for f in tiny.files_of("kvp_absent")} == {None}
    header = tiny.files_of("tags_absent")[0].header
    for keyword in ("BodyPartExamined", "SeriesDescription", "ConvolutionKernel", "SliceThickness", "AcquisitionDate"):
        assert keyword not in header


def test_tilted_gantry(tiny: Generated) -> None:
    """The header says what the positions say: slices follow the table, rows lean by the angle that the gantry has."""
    files = [f.header for f in tiny.files_of("tilted")]
    told = tiny.person("tilted")["tilt_deg"]
    assert isinstance(told, float)
    rows, columns = (np.array(files[0].ImageOrientationPatient, dtype=float)[part] for part in (slice(3), slice(3, 6)))
    assert np.linalg.norm(columns) == pytest.approx(1, abs=1e-5)
    assert rows @ columns == pytest.approx(0, abs=1e-6)
    at = np.array(sorted([list(map(float, ds.ImagePositionPatient)) for ds in files], key=lambda place: place[2]))
    step = (at[-1] - at[0]) / np.linalg.norm(at[-1] - at[0])
    assert step == pytest.approx([0, 0, 1], abs=1e-6)
    assert np.rad2deg(np.arccos(abs(np.cross(rows, columns) @ step))) == pytest.approx(abs(told), abs=0.01)
    assert {float(ds.GantryDetectorTilt) for ds in files} == {told}
    assert {float(f.header.GantryDetectorTilt) for f in tiny.files_of("korean_name")} == {0.0}


def test_cropped_field(tiny: Generated) -> None:
    header = tiny.files_of("cropped_field")[0].header
    assert float(header.PixelSpacing[0]) * header.Columns == pytest.approx(220)
    hu = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
    assert (hu[:, 0] > -300).any(), "the trunk goes on beyond the field"


def test_mixed_orientation(tiny: Generated) -> None:
    told = Counter(tuple(map(float, f.header.ImageOrientationPatient)) for f in tiny.files_of("mixed_orientation"))
    assert sorted(told.values())[0] == 1
    assert len(told) == 2


def test_photometric_wrong(tiny: Generated) -> None:
    """The header says the contrary of what the presentation LUT shape says, and of what the pixels show."""
    (film,) = [f.header for m in ("CR", "DX") for f in tiny.files_of("photometric_wrong", modality=m)]
    assert (film.PhotometricInterpretation, film.PresentationLUTShape) == ("MONOCHROME1", "IDENTITY")
    n = film.Rows
    values = film.pixel_array.astype(float)
    assert values[-n // 6 :, n // 3 : -n // 3].mean() > values[n // 2 - n // 8 : n // 2, n // 4 : n // 3].mean()
