"""Several acquisitions, planes or a scout under one Series Instance UID become stacks of their own."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from ospor_batch.catalog.series import catalog_center
from tests.archive.made import cr, ct

from .conftest import SPLIT_KEY, Catalogue, tables
from .test_series import CORONAL, WIDE, findings, only

AXIAL = [1, 0, 0, 0, 1, 0]


def image(number: int, height: float, **changes: Any) -> Dataset:
    return ct(slice_=number, **{"ImagePositionPatient": [0, 0, height], "PixelSpacing": WIDE} | changes)


def phases(**second: Any) -> dict[str, Dataset]:
    """Five places, each taken twice; what the second time differs in."""
    first = {f"a/{n}": image(n, 5.0 * n, AcquisitionNumber=1) for n in range(5)}
    return first | {f"b/{n}": image(10 + n, 5.0 * n, **{"AcquisitionNumber": 1} | second) for n in range(5)}


def test_two_acquisitions_at_one_place_are_two_stacks(catalogue: Catalogue) -> None:
    found = catalogue(phases(AcquisitionNumber=2, ContrastBolusAgent="Iomeron"))
    assert found.series["grade"].to_list() == ["usable"] * 2
    assert sorted(found.series["contrast_evidence"]) == ["given", "tag_absent"]
    assert found.series["n_instances"].to_list() == [5, 5]
    assert found.series["split_by"].unique().to_list() == ["acquisition_number"]
    assert found.series["whole_series_key"].n_unique() == 1
    assert found.series["series_key"].n_unique() == 2
    assert not set(found.series["series_key"]) & set(found.series["whole_series_key"])
    assert found.locator.group_by("series_key").len()["len"].to_list() == [5, 5]
    assert sorted(found.locator["slice_order"]) == sorted([*range(5), *range(5)])


def test_images_differ_by_kernel_voltage_or_time_where_the_acquisition_is_one(catalogue: Catalogue) -> None:
    for change, by in (
        ({"ConvolutionKernel": "B70f"}, "convolution_kernel"),
        ({"KVP": 80}, "kvp_kv"),
        ({"PixelSpacing": [25, 25]}, "pixel_spacing_row_mm"),
        ({"SliceThickness": 1}, "slice_thickness_mm"),
        ({"AcquisitionTime": "101500"}, "acquisition_time"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "image_type"),
    ):
        found = catalogue(phases(**change))
        assert found.series["split_by"].to_list() == [by] * 2


def test_what_nothing_tells_apart_stays_one_series_with_its_finding(catalogue: Catalogue) -> None:
    row = only(catalogue(phases()))
    assert (row["grade_reason"], row["n_duplicate_positions"], row["split_by"]) == ("duplicate_position", 5, "none")
    assert row["series_key"] == row["whole_series_key"]


def test_acquisitions_that_follow_each_other_are_one_stack(catalogue: Catalogue) -> None:
    row = only(catalogue({f"s/{n}": image(n, 5.0 * n, AcquisitionNumber=n) for n in range(6)}))
    assert (row["grade"], row["n_acquisitions"], row["split_by"]) == ("usable", 6, "none")
    assert "several_acquisitions" in findings(row)


def test_a_repeated_slice_does_not_tear_a_stack_whose_every_rotation_is_counted(catalogue: Catalogue) -> None:
    images = {f"s/{n}": image(n, 5.0 * n, AcquisitionNumber=n) for n in range(6)}
    row = only(catalogue(images | {"s/again": image(20, 10.0, AcquisitionNumber=20)}))
    assert row["grade_reason"] == "duplicate_position"


def test_a_scout_among_slices_is_a_series_of_its_own(catalogue: Catalogue) -> None:
    images = {f"s/{n}": image(n, 5.0 * n) for n in range(5)}
    scout = image(30, 0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=CORONAL)
    found = catalogue(images | {"s/scout": scout}).series.sort("n_instances")
    assert found["is_localizer"].to_list() == [True, False]
    assert found["grade"].to_list() == ["unusable", "usable"]


def test_two_planes_under_one_uid_are_two_stacks(catalogue: Catalogue) -> None:
    axial = {f"a/{n}": image(n, 5.0 * n) for n in range(4)}
    coronal = {
        f"c/{n}": image(10 + n, 0, ImagePositionPatient=[0, 5.0 * n, 0], ImageOrientationPatient=CORONAL) for n in range(4)
    }
    found = catalogue(axial | coronal).series
    assert sorted(found["orientation"]) == ["axial", "coronal"]
    assert found["split_by"].to_list() == ["turn"] * 2


def test_one_odd_slice_is_a_fault_of_the_series_and_no_series(catalogue: Catalogue) -> None:
    images = {f"s/{n}": image(n, 5.0 * n, ImageOrientationPatient=AXIAL if n else CORONAL) for n in range(5)}
    assert only(catalogue(images))["grade_reason"] == "mixed_orientation"


def test_a_lateral_radiograph_does_not_hide_the_frontal_one_of_its_series(catalogue: Catalogue) -> None:
    def film(number: int, **changes: Any) -> Dataset:
        return cr(slice_=number, SeriesDescription="Thorax 2 views", **changes)

    both = {"pa": film(1), "lat": film(2, ViewPosition="LL", PatientOrientation=["P", "F"])}
    found = catalogue(both).series.sort("view")
    assert found.select("view", "projection", "grade", "split_by", "n_instances").rows() == [
        ("lateral", "lateral", "usable", "view", 1),
        ("pa", "frontal", "usable", "view", 1),
    ]
    assert found["whole_series_key"].n_unique() == 1
    # by the direction of the rows too, where no tag says it
    silent = {"a": film(1, ViewPosition=None), "b": film(2, ViewPosition=None, PatientOrientation=["P", "F"])}
    assert sorted(catalogue(silent).series["view"]) == ["lateral", "unknown"]
    # two takes of one view stay together: which one counts is told where pixels are read
    assert only(catalogue({"pa": film(1), "again": film(2, ViewPosition="PA ")}))["n_slices"] == 2
    report = ct(slice_=9, PixelData=None, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67")
    assert sorted(catalogue(both | {"sr": report}).series["n_instances"]) == [1, 2]


def test_a_late_file_does_not_rename_the_other_part(catalogue: Catalogue) -> None:
    before = catalogue(phases(AcquisitionNumber=2)).series
    late = {"b/late": image(40, 25.0, AcquisitionNumber=2)}
    after = catalogue(phases(AcquisitionNumber=2) | late).series
    assert set(after["series_key"]) == set(before["series_key"])
    assert after.join(before, on="series_digest", how="semi").height == 1


def test_a_report_filed_among_acquisitions_goes_with_one_of_them(catalogue: Catalogue) -> None:
    report = ct(slice_=50, PixelData=None, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67")
    found = catalogue(phases(AcquisitionNumber=2) | {"a/report": report})
    assert sorted(found.series["n_instances"]) == [5, 6]


def test_a_series_in_two_folders_is_one_series(catalogue: Catalogue) -> None:
    row = only(catalogue({f"{'ab'[n % 2]}/{n}": image(n, 5.0 * n) for n in range(6)}))
    assert (row["grade"], row["n_folders"], row["n_instances"]) == ("usable", 2, 6)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from([AXIAL, CORONAL]), st.booleans(), st.integers(0, 2)),
        min_size=1,
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_every_image_stays_in_one_series_and_the_order_of_files_changes_nothing(
    taken: list[tuple[int, int, list[int], bool, int]], random: Any
) -> None:
    images = {
        f"s/{n}": image(
            n,
            5.0 * place,
            AcquisitionNumber=acquisition,
            ImageOrientationPatient=turn,
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER" if is_scout else "AXIAL"],
            PatientID=("P-1", "P-2", "")[owner],
        )
        for n, (place, acquisition, turn, is_scout, owner) in enumerate(taken)
    }
    instances, files = tables(images)
    found = catalog_center(instances, files, center="north", split_key=SPLIT_KEY)
    assert int(found.series["n_instances"].sum()) == len(images)
    assert found.locator["file_key"].n_unique() == found.locator.height == len(images)
    owners = {ds.PatientID for ds in images.values()} - {""}
    assert found.series["patient_key"].drop_nulls().n_unique() == len(owners), "nobody vanishes"
    shuffled = instances.with_columns(at=pl.Series(random.sample(range(len(images)), len(images)))).sort("at").drop("at")
    again = catalog_center(shuffled, files, center="north", split_key=SPLIT_KEY)
    assert again.series.equals(found.series)
    assert again.locator.equals(found.locator)
