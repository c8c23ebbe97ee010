"""Instances become series: geometry, kind, grade, duplicates, masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from ospor_batch.catalog import quality
from ospor_batch.catalog.series import Catalogued
from tests.archive.made import SEGMENTATION, cr, ct, uid

from .conftest import Catalogue

CORONAL = [1, 0, 0, 0, 0, -1]
WIDE = [50.0, 50.0]  # 8 x 8 pixels as wide as a trunk
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"
DOSE_SR = "1.2.840.10008.5.1.4.1.1.88.67"


def stack(n: int = 5, *, series: int = 1, **changes: Any) -> dict[str, Dataset]:
    """A CT series; a change that is a function is called with the slice number."""
    found = {}
    changes = {"PixelSpacing": WIDE} | changes
    for number in range(n):
        here = {keyword: value(number) if callable(value) else value for keyword, value in changes.items()}
        found[f"s{series}/{number:03d}"] = ct(series=series, slice_=number, **here)
    return found


def at(*heights: float) -> Callable[[int], list[float]]:
    return lambda number: [0, 0, heights[number]]


def only(found: Catalogued) -> dict[str, Any]:
    (row,) = found.series.iter_rows(named=True)
    return row


def findings(row: Mapping[str, Any]) -> set[str]:
    return set(row["findings"].split(";")) - {""}


def test_a_plain_stack_is_usable_and_measured(catalogue: Catalogue) -> None:
    row = only(catalogue(stack(6)))
    assert (row["grade"], row["grade_reason"], row["findings"]) == ("usable", None, "")
    assert (row["orientation"], row["slice_spacing_mm"], row["extent_mm"], row["tilt_deg"]) == ("axial", 5.0, 30.0, 0.0)
    assert (row["n_instances"], row["n_slices"], row["n_missing_slices"]) == (6, 6, 0)
    assert (row["modality"], row["sop_class"], row["scanner_vendor"], row["kernel_class"]) == (
        "CT",
        "image",
        "siemens",
        "standard",
    )
    assert (row["body_region"], row["body_region_source"], row["contrast_evidence"]) == ("abdomen", "tag", "tag_absent")
    assert (row["age_at_image"], row["age_source"], row["sex"]) == (62.0, "birth_date", "female")
    assert not any(row[name] for name in ("is_localizer", "is_derived", "is_secondary", "is_dose_report", "is_lossy"))
    assert row["is_human"]
    assert 0 <= row["split_position"] < 1


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (stack(PixelData=None), "no_pixel_data"),
        (stack(2), "too_few_slices"),
        (stack(5, ImagePositionPatient=at(0, 5, 15, 20, 25)), "missing_slice"),
        (stack(5, ImagePositionPatient=at(0, 5, 10, 13, 16)), "uneven_spacing"),
        (stack(5, ImagePositionPatient=at(0, 5, 5, 10, 15)), "duplicate_position"),
        (stack(5, ImagePositionPatient=None), "position_missing"),
        (stack(5, ImageOrientationPatient=lambda n: CORONAL if n == 0 else [1, 0, 0, 0, 1, 0]), "mixed_orientation"),
        (stack(5, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "orientation_invalid"),
        (stack(5, Rows=lambda n: 4 if n == 0 else 8), "changed_matrix"),
        (stack(5, PixelSpacing=lambda n: [0.7, 0.7] if n == 0 else [0.8, 0.8]), "changed_pixel_spacing"),
        (stack(5, PixelSpacing=None), "pixel_spacing_missing"),
        (stack(5, PixelSpacing=[0, 0]), "pixel_spacing_missing"),
        (stack(5, RescaleIntercept=None), "rescale_missing"),
        (stack(5, RescaleSlope=lambda n: None if n == 3 else 1), "rescale_missing"),
        (stack(5, SOPClassUID=SECONDARY), "secondary_capture"),
        (stack(5, SOPClassUID=SEGMENTATION, Modality="SEG"), "not_an_image"),
    ],
)
def test_what_cannot_be_read_as_a_stack_is_unusable(catalogue: Catalogue, images: dict[str, Dataset], reason: str) -> None:
    row = only(catalogue(images))
    assert (row["grade"], row["grade_reason"]) == ("unusable", reason)


@pytest.mark.parametrize(
    ("changes", "reason", "split_by"),
    [
        ({"PatientID": lambda n: f"P-{n % 3 // 2}"}, "mixed_patient", "patient"),
        ({"StudyInstanceUID": lambda n: uid(100 + n % 3 // 2)}, "mixed_study", "study"),
        (
            {"StudyInstanceUID": lambda n: uid(100 + n % 3 // 2), "PatientID": lambda n: f"P-{n % 3 // 2}"},
            "mixed_patient",
            "study+patient",
        ),
    ],
)
def test_nobody_vanishes_behind_the_owner_of_most_images_of_a_series(
    catalogue: Catalogue, changes: dict[str, Any], reason: str, split_by: str
) -> None:
    found = catalogue(stack(6, **changes))
    assert found.series.select("grade", "grade_reason", "split_by").unique().rows() == [("unusable", reason, split_by)]
    assert sorted(found.series["n_instances"]) == [2, 4]
    wanted = {"study": "study_key", "patient": "patient_key"}
    assert all(found.series[wanted[name]].n_unique() == 2 for name in split_by.split("+"))
    assert found.series["whole_series_key"].n_unique() == 1
    # another night, other files: the parts keep their keys
    again = catalogue(dict(list(stack(6, **changes).items())[1:4]))
    assert set(again.series["series_key"]) <= set(found.series["series_key"])


def test_the_parts_of_two_owners_are_split_as_whole_series_are(catalogue: Catalogue) -> None:
    """Two numbers under one UID, each with two acquisitions at the same places."""
    images = {
        f"{owner}{taken}/{place}": ct(
            slice_=100 * taken + 10 * owner + place,
            PatientID=f"P-{owner}",
            AcquisitionNumber=taken,
            ImagePositionPatient=[0, 0, 5 * place],
        )
        for owner in (1, 2)
        for taken in (1, 2)
        for place in range(3)
    }
    found = catalogue(images).series
    assert found["n_instances"].to_list() == [3] * 4
    assert found["split_by"].unique().to_list() == ["patient+acquisition_number"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"LossyImageCompression": "01"}, "lossy"),
        ({"BurnedInAnnotation": "YES"}, "burned_in_annotation"),
        ({"StudyDate": "20221301"}, "bad_date"),
        ({"RescaleType": "US"}, "rescale_type_not_hu"),
        ({"RescaleIntercept": 0}, "no_negative_hu"),
        ({"BitsStored": 8, "HighBit": 7}, "eight_bit"),
        ({"SOPClassUID": "1.2.3"}, "sop_class_unknown"),
        ({"Modality": None}, "modality_missing"),
        ({"ImagePositionPatient": lambda n: [0, 0.5 * n, 5.0 * n]}, "tilted"),
    ],
)
def test_what_can_be_read_with_doubt_is_doubtful(catalogue: Catalogue, changes: dict[str, Any], reason: str) -> None:
    row = only(catalogue(stack(5, **changes)))
    assert (row["grade"], row["grade_reason"]) == ("doubtful", reason)


def test_a_date_that_stands_for_an_unknown_one_is_no_date(catalogue: Catalogue) -> None:
    row = only(catalogue(stack(3, AcquisitionDate=lambda n: ["20220615", "19000101", "20220615"][n])))
    assert (str(row["image_date"]), row["image_date_source"], row["grade_reason"]) == ("2022-06-15", "acquisition", "bad_date")
    row = only(catalogue(stack(3, AcquisitionDate="19000101", SeriesDate="20220614")))
    assert (str(row["image_date"]), row["image_date_source"]) == ("2022-06-14", "series")
    row = only(catalogue(stack(3, PatientBirthDate="19000101", PatientAge="063Y")))
    assert (row["birth_date"], row["age_at_image"], row["age_source"]) == (None, 63.0, "patient_age")
    assert findings(row) == {"bad_birth_date"}


def test_words_in_small_letters_mean_the_same(catalogue: Catalogue) -> None:
    row = only(catalogue(stack(4, Modality="ct", RescaleType="hu")))
    assert (row["modality"], row["grade"], row["kvp_kv"], row["orientation"]) == ("CT", "usable", 120.0, "axial")


def test_a_map_that_was_computed_is_no_image(catalogue: Catalogue) -> None:
    row = only(catalogue(stack(4, SOPClassUID="1.2.840.10008.5.1.4.1.1.30")))
    assert (row["sop_class"], row["grade_reason"]) == ("other", "not_an_image")
    assert only(catalogue(stack(4, SOPClassUID="1.2.840.113619.4.26")))["grade_reason"] == "sop_class_unknown"


def test_positions_written_with_one_decimal_are_even(catalogue: Catalogue) -> None:
    row = only(catalogue(stack(40, ImagePositionPatient=lambda n: [0, 0, round(0.625 * n, 1)])))
    assert row["grade"] == "usable"


def test_the_number_of_missing_slices_is_told(catalogue: Catalogue) -> None:
    row = only(catalogue(stack(5, ImagePositionPatient=at(0, 5, 20, 25, 30))))
    assert row["n_missing_slices"] == 2


@pytest.mark.parametrize("turn", [1, -1])
def test_images_are_located_in_slice_order_along_the_normal(catalogue: Catalogue, turn: int) -> None:
    images = stack(4, ImagePositionPatient=at(10, 0, 15, 5), ImageOrientationPatient=[1, 0, 0, 0, turn, 0])
    ordered = catalogue(images).locator.sort("slice_order")
    expected = ["s1/001", "s1/003", "s1/000", "s1/002"]
    assert ordered["path"].to_list() == (expected if turn == 1 else expected[::-1])
    assert ordered["slice_order"].to_list() == [0, 1, 2, 3]


def test_a_radiograph_is_usable_alone(catalogue: Catalogue) -> None:
    row = only(catalogue({"r": cr()}))
    assert (row["grade"], row["view"], row["body_region"], row["contrast_evidence"]) == (
        "usable",
        "pa",
        "chest",
        "not_applicable",
    )
    assert row["n_slices"] == 1


def test_a_multi_frame_file_is_a_stack_whose_frames_must_be_checked(catalogue: Catalogue) -> None:
    ds = ct(SOPClassUID=ENHANCED, NumberOfFrames=4, PixelData=bytes(4 * 128), ImagePositionPatient=None)
    row = only(catalogue({"e": ds}))
    assert (row["sop_class"], row["n_instances"], row["n_slices"]) == ("enhanced_image", 1, 4)
    assert (row["grade"], "frame_geometry_unread" in findings(row)) == ("doubtful", True)


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, None),
        ({"SeriesDescription": "Topogram 0.6 T20f"}, "localizer_by_description"),
        # the header says nothing at all: an upright original CT image is a projection
        ({"ImageOrientationPatient": CORONAL}, "localizer_by_geometry"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImageType": None}, "localizer_by_geometry"),
    ],
)
def test_scouts_are_known_even_when_the_header_keeps_silent(
    catalogue: Catalogue, changes: dict[str, Any], finding: str | None
) -> None:
    row = only(catalogue({"scout": ct(**changes)}))
    assert row["is_localizer"]
    assert finding is None or finding in findings(row)


@pytest.mark.parametrize(("n", "is_scout"), [(1, True), (3, True), (4, False)])
def test_a_few_upright_images_are_scouts_and_more_are_a_reformat(catalogue: Catalogue, n: int, *, is_scout: bool) -> None:
    images = stack(n, ImageOrientationPatient=CORONAL, ImagePositionPatient=lambda k: [0, 5.0 * k, 0])
    row = only(catalogue(images))
    assert (row["is_localizer"], row["is_derived"]) == (is_scout, not is_scout)


def test_a_stack_named_after_its_scout_is_no_scout(catalogue: Catalogue) -> None:
    assert not only(catalogue(stack(10, SeriesDescription="Chest after scout")))["is_localizer"]


@pytest.mark.parametrize(
    "changes",
    [
        {"ImageType": ["DERIVED", "PRIMARY", "MPR"]},
        {"ImageType": ["ORIGINAL", "SECONDARY", "AXIAL"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 MPR"]},
        {"SeriesDescription": "MIP 10mm"},
        {"SeriesDescription": "VNC liver"},
        {"ImageOrientationPatient": CORONAL, "ImagePositionPatient": lambda n: [0, 5.0 * n, 0]},
    ],
)
def test_reformats_and_computed_images_are_derived(catalogue: Catalogue, changes: dict[str, Any]) -> None:
    assert only(catalogue(stack(5, **changes)))["is_derived"]


def test_dose_reports_are_known_as_images_and_as_reports(catalogue: Catalogue) -> None:
    page = ct(SOPClassUID=SECONDARY, SeriesDescription="Dose Report", ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    row = only(catalogue({"page": page}))
    assert row["is_dose_report"]
    assert row["is_secondary"]
    row = only(catalogue({"sr": ct(SOPClassUID=DOSE_SR, Modality="SR", PixelData=None)}))
    assert (row["is_dose_report"], row["sop_class"]) == (True, "report")
    assert not only(catalogue(stack(5, SeriesDescription="Chest low dose")))["is_dose_report"]


def test_the_first_key_of_a_repeated_instance_is_kept(catalogue: Catalogue) -> None:
    images = stack(4)
    images["copy/a"] = ct(slice_=1, PixelSpacing=WIDE)
    images["copy/b"] = ct(slice_=2, PixelSpacing=WIDE, RescaleIntercept=0)
    images["copy/c"] = ct(slice_=3, PixelSpacing=WIDE, SeriesInstanceUID=uid(2))
    found = catalogue(images)
    assert sorted(found.rejects["reason"]) == ["duplicate_different_content"] * 2 + ["duplicate_same_content"]
    assert int(found.series["n_duplicates"].sum()) == 3
    assert int(found.series["n_instances"].sum()) == 4
    assert found.rejects["scope"].unique().to_list() == ["archives/north"]


def test_the_digest_of_a_series_follows_its_content_not_its_place(catalogue: Catalogue) -> None:
    here = only(catalogue(stack(4)))["series_digest"]
    moved = {path.replace("s1", "elsewhere/s1"): ds for path, ds in stack(4).items()}
    assert only(catalogue(moved))["series_digest"] == here
    assert only(catalogue(stack(5)))["series_digest"] != here
    assert only(catalogue(stack(4, RescaleIntercept=0)))["series_digest"] != here


def test_nifti_masks_beside_the_images_are_theirs(catalogue: Catalogue) -> None:
    images = stack(4) | stack(4, series=2)
    found = catalogue(images, nifti={"s1/mask.nii.gz": "ab" * 32, "s1/other.nii": "cd" * 32, "s3/far.nii": "ef" * 32})
    masked = found.series.filter(mask_kind="nifti")
    assert masked.height == 1
    assert masked["mask_digest"].null_count() == 0
    masks = found.locator.filter(kind="mask_nifti")
    assert sorted(masks["path"]) == ["s1/mask.nii.gz", "s1/other.nii"]
    assert masks["series_key"].unique().to_list() == masked["series_key"].to_list()


@pytest.mark.parametrize("is_named", [True, False])
def test_segmentations_go_to_the_series_that_they_name_or_share_a_frame_with(catalogue: Catalogue, is_named: bool) -> None:
    item = Dataset()
    item.SeriesInstanceUID = uid(1)
    named = {"ReferencedSeriesSequence": [item]} if is_named else {}
    seg = ct(series=7, SOPClassUID=SEGMENTATION, Modality="SEG", NumberOfFrames=1, **named)
    elsewhere = stack(4, series=2, StudyInstanceUID=uid(200), FrameOfReferenceUID=uid(200, 1))
    found = catalogue(stack(4) | elsewhere | {"seg/1": seg})
    masks = found.locator.filter(kind="mask_dicom_seg")
    assert masks["path"].to_list() == ["seg/1"]
    assert masks["content_digest"].null_count() == 0
    (masked,) = found.series.filter(mask_kind="dicom_seg").iter_rows(named=True)
    assert (masked["modality"], masked["n_slices"]) == ("CT", 4)
    images = found.locator.filter(pl_path_starts("s1/"))
    assert images["series_key"].unique().to_list() == [masked["series_key"]]


def pl_path_starts(prefix: str) -> Any:
    return pl.col("path").str.starts_with(prefix)


def test_patient_numbers_are_one_however_they_are_written(catalogue: Catalogue) -> None:
    row = only(catalogue(stack(4, PatientID=lambda n: ["P-1", " p-1 ", "P -1", "Ｐ-1"][n], SpecificCharacterSet="ISO_IR 192")))
    assert row["grade"] == "usable"
    nobody = only(catalogue(stack(4, PatientID="")))
    assert (nobody["patient_key"], nobody["split_position"]) == (None, None)


def test_a_report_filed_among_images_does_not_blur_them(catalogue: Catalogue) -> None:
    report = ct(slice_=50, SOPClassUID=DOSE_SR, PixelData=None, KVP=None, Modality="SR")
    row = only(catalogue(stack(5) | {"s1/report": report}))
    assert (row["kvp_kv"], row["kvp_status"], row["n_instances"], row["n_slices"]) == (120.0, "stated", 6, 5)
    assert {"mixed_sop_class", "pixel_data_missing_in_part"} <= findings(row)


def test_no_instances_are_no_series(catalogue: Catalogue) -> None:
    found = catalogue({})
    assert (found.series.height, found.locator.height, found.rejects.height) == (0, 0, 0)


@pytest.mark.parametrize(("flag", "is_lossy"), [(None, True), ("00", False), ("01", True)])
def test_jpeg_2000_is_lossy_unless_the_header_denies_it(catalogue: Catalogue, flag: str | None, is_lossy: bool) -> None:
    images = stack(3, LossyImageCompression=flag, PixelData=encapsulate([b"\xff\x4f" + bytes(62)]))
    for ds in images.values():
        ds["PixelData"].is_undefined_length = True
    assert only(catalogue(images, syntax="1.2.840.10008.1.2.4.91"))["is_lossy"] is is_lossy


@pytest.mark.parametrize(
    ("syntax", "is_lossy"),
    [
        ("1.2.840.10008.1.2.4.50", True),
        ("1.2.840.10008.1.2.4.57", False),
        ("1.2.840.10008.1.2.4.70", False),
        ("1.2.840.10008.1.2.4.80", False),
        ("1.2.840.10008.1.2.4.81", True),
        ("1.2.840.10008.1.2.4.90", False),
        ("1.2.840.10008.1.2.4.102", True),
        ("1.2.840.10008.1.2.4.107", True),
        ("1.2.840.10008.1.2.4.110", False),
        ("1.2.840.10008.1.2.4.111", True),
        ("1.2.840.10008.1.2.4.201", False),
        ("1.2.840.10008.1.2.5", False),
    ],
)
def test_every_transfer_syntax_that_loses_is_lossy_without_a_flag(syntax: str, *, is_lossy: bool) -> None:
    row = {"is_flagged_lossy": False, "is_flagged_lossless": False, "syntaxes": [syntax]}
    assert quality.is_lossy(row) is is_lossy
