"""Enhanced multi-frame CT is measured frame by frame, as the same volume in single files is."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from ospor_batch.archive.header import read_header
from ospor_batch.synthetic.ct import Sampling, Scan
from ospor_batch.synthetic.headers import Series
from ospor_batch.synthetic.instances import ct_slices
from ospor_batch.synthetic.multiframe import enhanced_ct
from ospor_batch.synthetic.patient_files import Detail, index_series, scan_of
from ospor_batch.synthetic.population import Rates, people
from tests.archive.both import differences, together

from .conftest import Catalogue
from .test_series import findings, only

DETAIL = Detail(Sampling(32), 64)
LOST = ("PixelMeasuresSequence", "PlaneOrientationSequence", "PixelValueTransformationSequence")
SAME = (
    "orientation", "slice_spacing_mm", "slice_thickness_mm", "extent_mm", "tilt_deg", "stack_start_mm", "stack_end_mm",
    "pixel_spacing_row_mm", "pixel_spacing_column_mm", "field_of_view_mm", "n_slices", "kvp_kv", "kvp_status", "grade",
    "n_missing_slices", "n_duplicate_positions", "image_date", "reconstruction_diameter_mm",
)  # fmt: skip


@cache
def made() -> tuple[Series, Scan]:
    (person,) = people("south", range(1, 2), seed=5, night=2, rates=Rates(0, 0, 0, 0))
    return index_series(person), scan_of(person, DETAIL, is_contrast=False)


def volume(*, is_contrast: bool = False) -> Dataset:
    series, scan = made()
    return pydicom.dcmread(io.BytesIO(enhanced_ct(replace(series, is_contrast=is_contrast), scan).content))


def test_a_volume_in_one_file_is_the_volume_in_many(catalogue: Catalogue) -> None:
    series, scan = made()
    slices = {f"s/{n}": pydicom.dcmread(io.BytesIO(one.content)) for n, one in enumerate(ct_slices(series, scan))}
    for ds in slices.values():
        ds.PixelData = bytes(2 * ds.Rows * ds.Columns)  # some scanners compress theirs
    many, one = only(catalogue(slices)), only(catalogue({"mf": volume()}))
    assert {name: one[name] for name in SAME} == {name: many[name] for name in SAME}
    assert (one["grade"], one["orientation"], one["n_instances"], many["n_instances"]) == ("usable", "axial", 1, len(slices))
    assert (one["is_derived"], one["contrast_evidence"]) == (False, "tag_absent")
    assert one["kernel_raw"] == "STANDARD"


def test_contrast_that_stands_in_a_sequence_is_found(catalogue: Catalogue) -> None:
    row = only(catalogue({"mf": volume(is_contrast=True)}))
    assert (row["contrast_evidence"], row["contrast_route"]) == ("given", "intravenous")


def frames(ds: Dataset) -> Any:
    return ds.PerFrameFunctionalGroupsSequence


def lose_a_frame(ds: Dataset) -> None:
    middle = len(frames(ds)) // 2
    del frames(ds)[middle]
    ds.NumberOfFrames -= 1


def turn_one(ds: Dataset) -> None:
    item = Dataset()
    item.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    frames(ds)[1].PlaneOrientationSequence = [item]


def own_rescale(ds: Dataset) -> None:
    (shared,) = ds.SharedFunctionalGroupsSequence
    for number, frame in enumerate(frames(ds)):
        frame.PixelValueTransformationSequence = [Dataset()]
        frame.PixelValueTransformationSequence[0].update(
            {"RescaleIntercept": "-1024", "RescaleSlope": str(1 + number % 2), "RescaleType": "HU"}
        )
    del shared.PixelValueTransformationSequence


def own_spacing(ds: Dataset) -> None:
    item = Dataset()
    item.update({"PixelSpacing": [0.5, 0.5], "SliceThickness": 1})
    frames(ds)[0].PixelMeasuresSequence = [item]


def no_place(ds: Dataset) -> None:
    del frames(ds)[0].PlanePositionSequence


def one_group_too_few(ds: Dataset) -> None:
    del frames(ds)[-1]


@pytest.mark.parametrize(
    ("change", "finding", "grade"),
    [
        (lose_a_frame, "missing_slice", "unusable"),
        (turn_one, "mixed_orientation", "unusable"),
        (own_spacing, "changed_pixel_spacing", "unusable"),
        (own_rescale, "rescale_per_slice", "usable"),
        (no_place, "frame_geometry_unread", "doubtful"),
        (one_group_too_few, "frame_geometry_unread", "doubtful"),
    ],
)
def test_what_frames_say_is_found(catalogue: Catalogue, change: Any, finding: str, grade: str) -> None:
    ds = volume()
    change(ds)
    row = only(catalogue({"mf": ds}))
    assert finding in findings(row)
    assert row["grade"] == grade


def test_frames_of_two_voltages_are_mixed(catalogue: Catalogue) -> None:
    ds = volume()
    for number, frame in enumerate(frames(ds)):
        frame.CTXRayDetailsSequence = [Dataset()]
        frame.CTXRayDetailsSequence[0].KVP = (80, 140)[number % 2]
    row = only(catalogue({"mf": ds}))
    assert (row["kvp_kv"], row["kvp_status"]) == (None, "mixed")


def test_the_region_stands_among_the_frames(catalogue: Catalogue) -> None:
    ds = volume()
    region, anatomy = Dataset(), Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "51185008", "SCT", "Thorax"
    anatomy.FrameLaterality, anatomy.AnatomicRegionSequence = "U", [region]
    ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
    ds.SeriesDescription = ds.StudyDescription = ds.ProtocolName = ""
    ds.BodyPartExamined = ""
    row = only(catalogue({"mf": ds}))
    assert (row["body_region"], row["body_region_source"], row["body_part_raw"]) == ("chest", "tag", "Thorax")


def test_two_files_of_one_volume_are_one_stack_in_slice_order(catalogue: Catalogue) -> None:
    whole, low, high = volume(), volume(), volume()
    half = len(frames(whole)) // 2
    for ds, part, name in ((low, slice(0, half), "1"), (high, slice(half, None), "2")):
        ds.PerFrameFunctionalGroupsSequence = list(frames(ds))[part]
        n_bytes = ds.Rows * ds.Columns * 2
        ds.PixelData = ds.PixelData[part.start * n_bytes : part.stop and part.stop * n_bytes]
        ds.NumberOfFrames = len(frames(ds))
        ds.SOPInstanceUID = ds.SOPInstanceUID[:-1] + name
    found = catalogue({"b": low, "a": high})
    one, both = only(catalogue({"mf": whole})), only(found)
    assert both["extent_mm"] == one["extent_mm"]
    lowest = {
        name: min(f.PlanePositionSequence[0].ImagePositionPatient[2] for f in frames(ds))
        for name, ds in (("b", low), ("a", high))
    }
    order = found.locator.sort("slice_order")["path"].to_list()
    assert order == sorted(lowest, key=lambda name: lowest[name])


def test_multi_frame_images_are_left_to_pydicom_by_the_fast_reader() -> None:
    buffer = io.BytesIO()
    volume().save_as(buffer)
    contents = [buffer.getvalue()] * 3
    assert together(contents) == {}
    assert differences(contents) == []


def test_the_digest_follows_the_frames() -> None:
    def digest(ds: Dataset) -> str:
        buffer = io.BytesIO()
        ds.save_as(buffer)
        buffer.seek(0)
        values = read_header(buffer).values
        assert len(values["frame_positions_mm"].split("\\")) == 3 * ds.NumberOfFrames
        return str(values["header_digest"])

    moved = volume()
    frames(moved)[3].PlanePositionSequence[0].ImagePositionPatient[2] += 0.5
    assert digest(volume()) == digest(volume()) != digest(moved)
