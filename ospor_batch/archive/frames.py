"""What an enhanced multi-frame image says of its frames, in the columns that a single image fills from its own header.

Values stand in functional groups, those of a frame before those that all frames share (PS3.3 C.7.6.16). What differs from
frame to frame is flagged; a reader of pixels takes each frame's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
)

from ospor_batch.archive.values import Charset, Keyword, cell_of_value, keywords, text_of
from ospor_batch.errors import ItemRefused

CLASSES = tuple(
    str(uid)
    for uid in (
        EnhancedCTImageStorage, EnhancedMRImageStorage, EnhancedPETImageStorage, LegacyConvertedEnhancedCTImageStorage,
        LegacyConvertedEnhancedMRImageStorage, LegacyConvertedEnhancedPETImageStorage,
    )
)  # fmt: skip
SHARED, OF_FRAMES, AGENTS, MOMENT = 0x52009229, 0x52009230, 0x00180012, 0x0008002A
TAGS = (MOMENT, AGENTS, SHARED, OF_FRAMES)
UNREAD = "frames_unreadable"


class _Place(NamedTuple):
    """Where an element of a single image stands in a multi-frame one: a functional group, and a name there."""

    group: str
    name: str


_XRAY, _EXPOSURE, _RESCALE = "CTXRayDetailsSequence", "CTExposureSequence", "PixelValueTransformationSequence"
PLACES = {
    "PixelSpacing": _Place("PixelMeasuresSequence", "PixelSpacing"),
    "SliceThickness": _Place("PixelMeasuresSequence", "SliceThickness"),
    "SpacingBetweenSlices": _Place("PixelMeasuresSequence", "SpacingBetweenSlices"),
    "ImageOrientationPatient": _Place("PlaneOrientationSequence", "ImageOrientationPatient"),
    "ImagePositionPatient": _Place("PlanePositionSequence", "ImagePositionPatient"),
    "RescaleSlope": _Place(_RESCALE, "RescaleSlope"),
    "RescaleIntercept": _Place(_RESCALE, "RescaleIntercept"),
    "RescaleType": _Place(_RESCALE, "RescaleType"),
    "KVP": _Place(_XRAY, "KVP"),
    "FilterType": _Place(_XRAY, "FilterType"),
    "FilterMaterial": _Place(_XRAY, "FilterMaterial"),
    "ConvolutionKernel": _Place("CTReconstructionSequence", "ConvolutionKernel"),
    "ReconstructionDiameter": _Place("CTReconstructionSequence", "ReconstructionDiameter"),
    "XRayTubeCurrent": _Place(_EXPOSURE, "XRayTubeCurrentInmA"),
    "Exposure": _Place(_EXPOSURE, "ExposureInmAs"),
    "CTDIvol": _Place(_EXPOSURE, "CTDIvol"),
    "GantryDetectorTilt": _Place("CTAcquisitionDetailsSequence", "GantryDetectorTilt"),
    "WindowCenter": _Place("FrameVOILUTSequence", "WindowCenter"),
    "WindowWidth": _Place("FrameVOILUTSequence", "WindowWidth"),
}
ANATOMY, REGION = "FrameAnatomySequence", "AnatomicRegionSequence"
FIRST = ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept")  # told of the first frame


def told_of_frames(dataset: Dataset, values: Mapping[str, Any], *, charset: Charset) -> tuple[dict[str, Any], set[str]]:
    """Columns that the frames fill and the header itself left open, and remarks; dataset: with TAGS and what they hold."""
    flags: set[str] = set()
    found = _of_whole(dataset, values, charset=charset)
    try:
        frames, shared = dataset[BaseTag(OF_FRAMES)].value, (dataset[BaseTag(SHARED)].value if SHARED in dataset else [])
        if not len(frames) or len(frames) != (values["number_of_frames"] or 1):
            raise ItemRefused("broken_header", "frames and their functional groups are not as many")
        groups = [[frame, *shared[:1]] for frame in frames]
        for of in keywords():
            if of.name in PLACES and not _is_said(of, values):
                told, is_one = _of_frames(of, groups)
                if not is_one and of.name != "ImagePositionPatient":
                    flags.add(f"frames_differ:{of.name}")
                cell = cell_of_value(of, told, stored=None, charset=charset)
                found |= zip((field.name for field in of.fields), cell.values, strict=True)
                flags.update(cell.flags)
        found |= _region(groups, values)
        found["frame_positions_mm"] = _numbers(groups, PLACES["ImagePositionPatient"], n=3)
        if "frames_differ:ImageOrientationPatient" in flags:
            found["frame_cosines"] = _numbers(groups, PLACES["ImageOrientationPatient"], n=6)
    except Exception:  # noqa: BLE001 -- whatever broken groups raise costs the geometry of the frames, not the file
        flags.add(UNREAD)
    return found, flags


def _is_said(of: Keyword, values: Mapping[str, Any]) -> bool:
    return any(values[field.name] not in {None, ""} for field in of.fields)


def _of_frames(of: Keyword, groups: list[list[Dataset]]) -> tuple[Any, bool]:
    """An element's value over all frames, null where they differ, and whether they agree."""
    place = PLACES[of.name]
    values = [_value(each, place) for each in groups]
    different = list(dict.fromkeys(None if value is None else text_of(value) for value in values))
    if len(different) == 1 or of.name in FIRST:
        return values[0], len(different) == 1
    if of.fields[0].type == "string":
        return "\\".join(dict.fromkeys(text for text in different if text)), False
    return None, False


def _value(groups: list[Dataset], place: _Place) -> Any:
    """A frame's own value before the shared one; null: absent."""
    for group in groups:
        if place.group in group and len(group[place.group].value):
            item = group[place.group].value[0]
            return item[place.name].value if place.name in item else None
    return None


def _numbers(groups: list[list[Dataset]], place: _Place, *, n: int) -> str | None:
    """Numbers of all frames, in their order, backslash-joined; null unless every frame has n of them."""
    found: list[str] = []
    for each in groups:
        value = _value(each, place)
        if value is None or len(value) != n:
            return None
        found += [repr(float(number)) for number in value]
    return "\\".join(found)


def _region(groups: list[list[Dataset]], values: Mapping[str, Any]) -> dict[str, Any]:
    """Body parts of all frames, in words: an enhanced image has no BodyPartExamined (PS3.3 C.7.6.16.2.8)."""
    if values["body_part_examined"]:
        return {}
    regions = [item for each in groups for item in _value(each, _Place(ANATOMY, REGION)) or ()]
    meanings = sorted({text_of(_meaning(item)) or "" for item in regions} - {""})
    return {"body_part_examined": "\\".join(meanings)} if meanings else {}


def _of_whole(dataset: Dataset, values: Mapping[str, Any], *, charset: Charset) -> dict[str, Any]:
    """Contrast and acquisition date, which stand outside the groups in a form of their own."""
    by_name = {of.name: of for of in keywords()}
    told: dict[str, Any] = {}
    moment = str(dataset[BaseTag(MOMENT)].value) if MOMENT in dataset else ""
    if len(moment) >= 8:
        told["AcquisitionDate"] = moment[:8]
    agents = dataset[BaseTag(AGENTS)].value if AGENTS in dataset else []
    if agents:
        told["ContrastBolusAgent"] = "\\".join(_meaning(agent) for agent in agents)
        routes = [r for agent in agents for r in agent.get("ContrastBolusAdministrationRouteSequence", [])]
        told["ContrastBolusRoute"] = "\\".join(_meaning(route) for route in routes) or None
        told["ContrastBolusVolume"] = agents[0].get("ContrastBolusVolume")
    found: dict[str, Any] = {}
    for name, value in told.items():
        of = by_name[name]
        if not _is_said(of, values):
            cell = cell_of_value(of, value, stored=None, charset=charset)
            found |= zip((field.name for field in of.fields), cell.values, strict=True)
    return found


def _meaning(code: Dataset) -> str:
    return str(code.get("CodeMeaning", "") or code.get("CodeValue", ""))
