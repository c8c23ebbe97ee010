"""Every typed finding fires on a series that has it, and nothing is told that is not typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from ospor_batch.catalog.quality import DOUBTFUL, REMARKS, UNUSABLE, grade
from ospor_batch.catalog.rules import Rules
from tests.archive.made import cr, ct, uid

from .conftest import Catalogue
from .test_series import CORONAL, DOSE_SR, ENHANCED, SECONDARY, WIDE, at, findings, only, stack

Images = dict[str, Dataset]


def scout(**changes: Any) -> Images:
    return {"scout": ct(**changes)}


def screen() -> Images:
    page = {"SOPClassUID": SECONDARY, "SeriesDescription": "Dose Report", "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}
    return {"page": ct(**page)}


def split_twice() -> Images:
    """Two acquisitions at the same places under one Series Instance UID."""
    return {
        f"a{number}/{place}": ct(slice_=10 * number + place, AcquisitionNumber=number, ImagePositionPatient=[0, 0, 5 * place])
        for number in (1, 2)
        for place in range(3)
    }


def unsigned_padding() -> Images:
    """As GE scanners write it: -2000 of a signed image under the unsigned value representation."""
    images = stack(PixelRepresentation=1)
    for ds in images.values():
        ds.add_new("PixelPaddingValue", "US", 63536)
    return images


FIRES: dict[str, Callable[[], Images]] = {
    "not_an_image": lambda: {"sr": ct(SOPClassUID=DOSE_SR, Modality="SR", PixelData=None)},
    "no_pixel_data": lambda: stack(PixelData=None),
    "secondary_capture": lambda: stack(SOPClassUID=SECONDARY),
    "localizer": lambda: scout(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    "color": lambda: stack(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, PixelData=bytes(384)),
    "mixed_patient": lambda: stack(PatientID=lambda n: f"P-{n % 2}"),
    "mixed_study": lambda: stack(StudyInstanceUID=lambda n: uid(100 + n % 2)),
    "changed_matrix": lambda: stack(Rows=lambda n: 4 if n == 0 else 8),
    "changed_pixel_spacing": lambda: stack(PixelSpacing=lambda n: [50, 50] if n else [60, 60]),
    "mixed_orientation": lambda: stack(ImageOrientationPatient=lambda n: [1, 0, 0, 0, 1, 0] if n else CORONAL),
    "orientation_invalid": lambda: stack(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
    "position_missing": lambda: stack(ImagePositionPatient=None),
    "pixel_spacing_missing": lambda: stack(PixelSpacing=[0, 0]),
    "rescale_missing": lambda: stack(RescaleSlope=None),
    "duplicate_position": lambda: stack(5, ImagePositionPatient=at(0, 5, 5, 10, 15)),
    "missing_slice": lambda: stack(5, ImagePositionPatient=at(0, 5, 15, 20, 25)),
    "uneven_spacing": lambda: stack(5, ImagePositionPatient=at(0, 5, 10, 13, 16)),
    "too_few_slices": lambda: stack(2),
    "rescale_implausible": lambda: stack(RescaleSlope=-1),
    "frame_geometry_unread": lambda: {"e": ct(SOPClassUID=ENHANCED, NumberOfFrames=4, PixelData=bytes(512))},
    "localizer_by_geometry": lambda: scout(ImageOrientationPatient=CORONAL),
    "localizer_by_description": lambda: scout(SeriesDescription="Topogram 0.6"),
    "sop_class_unknown": lambda: stack(SOPClassUID="1.2.3"),
    "modality_missing": lambda: stack(Modality=None),
    "mixed_sop_class": lambda: stack() | {"s1/r": ct(slice_=50, SOPClassUID=DOSE_SR, PixelData=None, Modality="SR")},
    "converted_radiograph": lambda: {"r": cr(SOPClassUID=SECONDARY)},
    "lossy": lambda: stack(3, LossyImageCompression="01"),
    "tilted": lambda: stack(ImagePositionPatient=lambda n: [0, 0.5 * n, 5.0 * n]),
    "rescale_type_not_hu": lambda: stack(RescaleType="US"),
    "no_negative_hu": lambda: stack(RescaleIntercept=0),
    "eight_bit": lambda: stack(BitsStored=8, HighBit=7),
    "high_bit_contradicted": lambda: stack(BitsStored=12, HighBit=15),
    "wrong_signedness": lambda: stack(PixelRepresentation=lambda n: n % 2),
    "hu_implausible": lambda: stack(BitsStored=10, HighBit=9),
    "padding_in_tissue_range": lambda: stack(PixelPaddingValue=1024),
    "burned_in_annotation": lambda: stack(BurnedInAnnotation="YES"),
    "monochrome_contradicted": lambda: {"r": cr(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="IDENTITY")},
    "view_contradicted": lambda: {"r": cr(ViewPosition="PA", SeriesDescription="Chest lateral")},
    "bad_date": lambda: stack(StudyDate="20221301"),
    "pixel_data_missing_in_part": lambda: stack(PixelData=lambda n: bytes(128) if n else None),
    "age_conflict": lambda: stack(PatientAge="075Y"),
    "age_implausible": lambda: stack(PatientBirthDate="17890505"),
    "age_unreadable": lambda: stack(PatientAge="62"),
    "bad_birth_date": lambda: stack(PatientBirthDate="19601301"),
    "body_region_contradicted": lambda: stack(BodyPartExamined="HEAD", SeriesDescription="Abdomen"),
    "copy_under_other_number": lambda: (
        stack(3) | {f"copy/{n}": ct(slice_=n, PixelSpacing=WIDE, PatientID="P-20") for n in range(3)}
    ),
    "cropped_field_of_view": lambda: stack(PixelSpacing=[20, 20]),
    "derived": lambda: stack(ImageType=["DERIVED", "PRIMARY", "MPR"]),
    "dose_report": screen,
    "height_out_of_range": lambda: stack(PatientSize=163),
    "implant_described": lambda: stack(SeriesDescription="CT Chest O-MAR"),
    "low_dose_above_limit": lambda: stack(BodyPartExamined="CHEST", SeriesDescription="Low dose", CTDIvol=4.1),
    "mixed_birth_date": lambda: stack(PatientBirthDate=lambda n: f"1960061{n % 2}"),
    "mixed_sex": lambda: stack(PatientSex=lambda n: "FM"[n % 2]),
    "not_human": lambda: stack(PatientSpeciesDescription="Canine"),
    "padding": lambda: stack(PixelPaddingValue=0),
    "padding_written_unsigned": unsigned_padding,
    "phantom_denied": lambda: stack(StudyDescription="QCT ohne Phantom"),
    "phantom_described": lambda: stack(ProtocolName="Spine with phantom"),
    "reformat_by_geometry": lambda: stack(4, ImageOrientationPatient=CORONAL, ImagePositionPatient=lambda n: [0, 5.0 * n, 0]),
    "rescale_per_slice": lambda: stack(RescaleSlope=lambda n: 1 + n / 100),
    "several_acquisitions": lambda: stack(AcquisitionNumber=lambda n: n),
    "several_folders": lambda: {f"{'ab'[n % 2]}/{n}": ds for n, ds in enumerate(stack().values())},
    "split_series": split_twice,
    "weight_out_of_range": lambda: stack(PatientWeight=7),
}


def fired(catalogue: Catalogue, images: Images) -> set[str]:
    return set().union(*(findings(row) for row in catalogue(images).series.iter_rows(named=True)))


def test_every_typed_finding_has_a_series_that_fires_it() -> None:
    assert set(FIRES) == {*UNUSABLE, *DOUBTFUL, *REMARKS}
    assert len(UNUSABLE) + len(DOUBTFUL) + len(REMARKS) == len(FIRES), "a finding is graded in one way alone"


@pytest.mark.parametrize("finding", sorted(FIRES))
def test_a_finding_fires(catalogue: Catalogue, finding: str) -> None:
    assert finding in fired(catalogue, FIRES[finding]())


def test_a_sound_series_has_no_finding(catalogue: Catalogue) -> None:
    assert fired(catalogue, stack(6)) == set()
    assert fired(catalogue, {"r": cr()}) == set()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # air and bone fit
        ({"BitsStored": 12, "HighBit": 11}, set()),
        ({"PixelRepresentation": 1, "RescaleIntercept": 0}, set()),
        ({"BitsStored": 12, "HighBit": 11, "RescaleSlope": 2.0002442, "RescaleIntercept": -4047}, set()),
        # too narrow for bone, or for air
        ({"BitsStored": 10, "HighBit": 9}, {"hu_implausible"}),
        ({"BitsStored": 12, "HighBit": 11, "RescaleIntercept": -500}, {"hu_implausible"}),
        ({"RescaleSlope": 1000}, {"rescale_implausible"}),
        ({"RescaleIntercept": 0}, {"no_negative_hu", "wrong_signedness"}),
        # padding below air is no matter; within tissue it is
        ({"PixelPaddingValue": 0}, {"padding"}),
        ({"PixelPaddingValue": 1024}, {"padding", "padding_in_tissue_range"}),
    ],
)
def test_what_the_declared_rescale_can_hold(catalogue: Catalogue, changes: dict[str, Any], expected: set[str]) -> None:
    assert fired(catalogue, stack(4, **changes)) == expected


@pytest.mark.parametrize(
    ("photometric", "shape", "is_contradicted"),
    [
        ("MONOCHROME1", "INVERSE", False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", None, False),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", "LIN OD", False),
    ],
)
def test_the_shape_of_the_presentation_must_fit_the_photometric_interpretation(
    catalogue: Catalogue, photometric: str, shape: str | None, *, is_contradicted: bool
) -> None:
    row = only(catalogue({"r": cr(PhotometricInterpretation=photometric, PresentationLUTShape=shape)}))
    assert ("monochrome_contradicted" in findings(row)) is is_contradicted
    assert row["grade"] == ("doubtful" if is_contradicted else "usable")


@pytest.mark.parametrize(
    ("description", "is_told"),
    [
        ("CT Chest O-MAR", True),
        ("iMAR 3.0 Br40", True),
        ("nach Zement-Augmentation", True),
        ("胸部 金属", True),
        ("척추 금속 고정", True),
        ("Abdomen ohne Metall", False),
        ("no implant", False),
        ("implantable port", False),
        ("CT MAR 2019", False),
        ("Chest plain", False),
    ],
)
def test_an_implant_is_known_where_a_description_names_it_and_grades_nothing(
    catalogue: Catalogue, description: str, *, is_told: bool
) -> None:
    row = only(catalogue(stack(4, SeriesDescription=description, SpecificCharacterSet="ISO_IR 192")))
    assert ("implant_described" in findings(row)) is is_told
    assert row["grade"] == "usable"


@pytest.mark.parametrize(
    ("series", "study", "told"),
    [
        ("Spine 3 mm QCT PHANTOM", "", "phantom_described"),
        ("Spine", "LWS mit Kalibrierphantom", "phantom_described"),
        ("Wirbelsäule", "腰椎 体模", "phantom_described"),
        ("Spine without phantom", "QCT phantom", "phantom_denied"),
        ("phantomless BMD", "", "phantom_denied"),
        ("asynchronous calibration", "", "phantom_denied"),
        ("with and without phantom; phantom", "QCT phantom", None),
        ("phantom limb pain", "CTDI phantom", None),
        ("QCT", "Spine", None),
    ],
)
def test_a_phantom_is_known_where_the_nearest_description_speaks_of_one(
    catalogue: Catalogue, series: str, study: str, told: str | None
) -> None:
    row = only(catalogue(stack(4, SeriesDescription=series, StudyDescription=study, SpecificCharacterSet="ISO_IR 192")))
    assert findings(row) & {"phantom_described", "phantom_denied"} == ({told} if told else set())
    assert row["grade"] == "usable"


def test_a_narrow_reconstruction_is_known_by_its_own_description_alone(catalogue: Catalogue) -> None:
    narrow = {"PixelSpacing": [20, 20], "StudyDescription": "QCT phantom"}
    assert "phantom_described" not in findings(only(catalogue(stack(4, **narrow))))
    assert "phantom_described" in findings(only(catalogue(stack(4, SeriesDescription="recon phantom", **narrow))))


def test_remarks_grade_nothing() -> None:
    assert grade(set(REMARKS)) == ("usable", None)


def test_the_first_reason_in_the_stated_order_is_the_reason() -> None:
    assert grade({"missing_slice", "duplicate_position", "lossy"}) == ("unusable", "duplicate_position")
    assert grade({"tilted", "lossy"}) == ("doubtful", "lossy")


def test_jpeg_is_lossy_whatever_the_flag_says(catalogue: Catalogue) -> None:
    images = stack(3, LossyImageCompression="00", PixelData=encapsulate([b"\xff\xd8" + bytes(62)]))
    for ds in images.values():
        ds["PixelData"].is_undefined_length = True
    assert only(catalogue(images, syntax="1.2.840.10008.1.2.4.51"))["is_lossy"]


def test_too_few_is_what_the_study_says(catalogue: Catalogue) -> None:
    assert only(catalogue(stack(5), rules=Rules(smallest_stack=6)))["grade_reason"] == "too_few_slices"


def test_the_page_for_data_engineers_names_every_finding() -> None:
    page = (Path(__file__).parents[2] / "docs" / "catalog.md").read_text(encoding="utf-8")
    unnamed = [finding for finding in (*UNUSABLE, *DOUBTFUL, *REMARKS) if f"`{finding}`" not in page]
    assert not unnamed
