"""What a DICOMweb server tells as JSON gives the row that the file itself gives."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from ospor_batch.archive.header import Header, read_header
from ospor_batch.archive.web_header import as_told, header_file
from ospor_batch.errors import ItemRefused
from tests.archive.made import ct, encoded


def told(**changes: Any) -> dict[str, Any]:
    """The header of a made file as a server tells it: pixels by address."""
    dataset = pydicom.dcmread(io.BytesIO(encoded(ct(**changes))))
    model: dict[str, Any] = json.loads(dataset.to_json(bulk_data_threshold=0, bulk_data_element_handler=lambda _: "http://x/1"))
    return as_numbers(model)


def as_numbers(model: dict[str, Any]) -> dict[str, Any]:
    """Decimal texts as the numbers that servers make of them, in sequences too."""
    for element in model.values():
        if element["vr"] in {"DS", "IS"} and "Value" in element:
            element["Value"] = [float(value) for value in element["Value"]]
        elif element["vr"] == "SQ":
            for item in element.get("Value", []):
                as_numbers(item)
    return model


def of_web(model: dict[str, Any]) -> Header:
    with header_file(model) as file:
        return as_told(read_header(file), model)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"WindowCenter": ["40", "50"], "WindowWidth": "400"},
        {"PatientName": "김^민지", "SeriesDescription": "복부 조영전", "SpecificCharacterSet": "ISO_IR 192"},
        {"ImagePositionPatient": [-120.5, 3, 1e-7], "PixelSpacing": [0.8, 0.79999]},
        {"StudyDate": "20221301", "PatientAge": "", "ContrastBolusAgent": ""},
        {"KVP": ""},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33", "Rows": None, "Columns": None, "PixelData": None},
    ],
)
def test_values_equal_those_of_the_file(changes: dict[str, Any]) -> None:
    of_file = read_header(io.BytesIO(encoded(ct(**changes)))).values
    found = of_web(told(**changes)).values
    differs = {name: (of_file[name], found[name]) for name in of_file if of_file[name] != found[name]}
    assert differs == {"transfer_syntax_uid": ("1.2.840.10008.1.2.1", None)}


def item(**values: Any) -> Dataset:
    held = Dataset()
    with pydicom.config.disable_value_validation():
        held.update(values)
    return held


def frames(*positions: list[str], **shared: Dataset) -> dict[str, Any]:
    """What makes a multi-frame image of a slice: its geometry stands in functional groups."""
    groups = [item(PlanePositionSequence=[item(ImagePositionPatient=position)]) for position in positions]
    lost = dict.fromkeys(
        ("ImagePositionPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "RescaleType", "SliceThickness")
    )
    return lost | {
        "SOPClassUID": EnhancedCTImageStorage,
        "NumberOfFrames": len(positions),
        "PixelData": bytes(128 * len(positions)),
        "PerFrameFunctionalGroupsSequence": groups,
        "SharedFunctionalGroupsSequence": [item(**{name: [held] for name, held in shared.items()})],
    }


@pytest.mark.parametrize(
    ("spacing", "positions"),
    [
        (["0.8", "0.8"], (["0", "0", "0"], ["0", "0", "5"])),
        (["0.79999", "0.333333333333333"], (["-120.5", "3", "1e-7"], ["-120.5", "3", "-123.4567890123"])),
        (["0.1", "12345678.9012345"], (["-1.2345678901e-5", "1E+2", "0.10"], ["+4", "00.5", "-0"])),
    ],
)
def test_decimals_inside_functional_groups_equal_those_of_the_file(
    spacing: list[str], positions: tuple[list[str], ...]
) -> None:
    changes = frames(
        *positions,
        PixelMeasuresSequence=item(PixelSpacing=spacing, SliceThickness="1.25"),
        PixelValueTransformationSequence=item(RescaleIntercept="-1024.0", RescaleSlope="1.0", RescaleType="HU"),
        FrameVOILUTSequence=item(WindowCenter=["40", "-600"], WindowWidth="400"),
        CTExposureSequence=item(ExposureInmAs=12.5, CTDIvol=7.123456789012345),
    )
    of_file = read_header(io.BytesIO(encoded(ct(**changes)))).values
    found = of_web(told(**changes)).values
    assert of_file["frame_positions_mm"] is not None
    assert of_file["pixel_spacing_row_mm"] == float(spacing[0])
    differs = {name: (of_file[name], found[name]) for name in of_file if of_file[name] != found[name]}
    assert differs == {"transfer_syntax_uid": ("1.2.840.10008.1.2.1", None)}


def test_pixels_that_are_not_even_told_by_address_are_there() -> None:
    model = told()
    del model["7FE00010"]
    assert of_web(model).values["is_pixel_data"] is True


def test_a_told_transfer_syntax_is_kept() -> None:
    model = told() | {"00083002": {"vr": "UI", "Value": ["1.2.840.10008.1.2.4.90"]}}
    assert of_web(model).values["transfer_syntax_uid"] == "1.2.840.10008.1.2.4.90"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["vr", "Value", "00080018"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60)
@given(element=JSON, tag=st.sampled_from(["00080018", "00280010", "00281053", "7FE00010", "00080005", "nonsense"]))
def test_any_answer_is_a_header_or_a_refusal(element: Any, tag: str) -> None:
    with contextlib.suppress(ItemRefused):
        of_web({**told(), tag: element})
