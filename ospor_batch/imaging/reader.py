"""DICOM pixels to arrays: a CT series to a volume in HU, a DICOM SEG to a grid of labels.

Whatever cannot be read is an ItemRefused with the class of what went wrong, never its text: that may hold a path.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.decoding import Stored, declared, frames_of, open_dataset, open_slice, padding_of, refusals
from ospor_batch.imaging.memory import empty
from ospor_batch.imaging.quality import refuse_without_image
from ospor_batch.imaging.segments import structure_named
from ospor_batch.imaging.volume import AIR_HU, Array, LabelGrid, Stack, Volume, affine_of, regular_stack
from ospor_batch.sources import Location

SAME_DIRECTION = 1e-3  # direction cosines; scanners write 4 to 6 digits
SAME_SPACING = 1e-3  # relative
HEIGHTS_M = (1.2, 2.2)  # methods I1
SEXES = {"F": "female", "M": "male"}
MOST_MISSING = 0.5  # share of the slices; with more open places the step itself is doubtful
EVEN_STEP = 17  # pixels between those that are looked at first for whether a slice shows one value alone
PADDING_BELOW_HU = -900.0  # a padding value inside the range of tissue is a wrong header, not padding


@dataclass(frozen=True)
class _Plane:
    """Where one frame lies and how its stored values become HU."""

    position: Array
    rows: Array  # LPS step from row to row in mm
    columns: Array
    thickness: float | None
    spacing: float | None  # declared distance to the next slice
    slope: float | None
    intercept: float | None
    kvp_kv: float | None = None
    height_m: float | None = None
    sex: str | None = None

    @property
    def normal(self) -> Array:
        across = np.cross(self.columns, self.rows)
        upright: Array = across / np.linalg.norm(across)
        return upright


@dataclass(frozen=True)
class _Slice:
    plane: _Plane
    image: npt.NDArray[Any]  # HU; of a segmentation its labels
    is_padding: npt.NDArray[np.bool_] | None = None

    @property
    def is_empty(self) -> bool:
        return self.is_padding is not None and bool(self.is_padding.all())


class _Room:
    """Memory for the slices of a series that has one in each file; made when the size of a slice is known."""

    def __init__(self, n_files: int) -> None:
        self.n_files = n_files
        self.whole: npt.NDArray[np.float32] | None = None
        self._lock = threading.Lock()

    def slice(self, number: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        with self._lock:
            if self.whole is None:
                self.whole = empty((self.n_files, *shape), np.float32)
        return self.whole[number] if shape == self.whole.shape[1:] else np.empty(shape, np.float32)


def read_volume(paths: Sequence[Location], *, n_threads: int = 1) -> Volume:
    """Read the files of one CT series, in any order, to HU; multi-frame CT too.

    Slices ascend along the normal of the images. Places where a slice is missing, padding, and slices of one value alone hold
    -1024 HU and are marked. n_threads: files that are read and decoded at a time; the answer, refusals too, does not depend
    on it. ItemRefused: decode_failed, geometry_changed, image_blank, image_saturated, and what sources.open_bytes raises.
    """
    room = _Room(len(paths))
    slices = [piece for pieces in _in_order(paths, n_threads, room) for piece in pieces]
    if not slices:
        raise ItemRefused("geometry_changed", "no images")
    first = slices[0].plane
    _refuse_mixed(slices)
    stack = regular_stack(
        np.array([s.plane.position for s in slices]), first.normal, thickness=first.spacing or first.thickness
    )
    n_missing = stack.n_slices - len(slices)
    if n_missing > MOST_MISSING * stack.n_slices:
        raise ItemRefused("geometry_changed", f"{n_missing} of {stack.n_slices} slices are missing")
    n_empty = _n_empty(slices, stack)
    hu, is_padding = _fill(slices, stack, room)
    refuse_without_image(hu, is_padding)
    return Volume(
        hu=hu,
        affine=affine_of(stack, rows=first.rows, columns=first.columns),
        is_padding=is_padding,
        n_missing_slices=n_missing + n_empty,
        kvp_kv=first.kvp_kv if {piece.plane.kvp_kv for piece in slices} == {first.kvp_kv} else None,
        height_m=first.height_m,
        sex=first.sex,
    )


def read_segmentation(path: Location, *, levels: Mapping[str, int]) -> LabelGrid | None:
    """Read the segments of a DICOM SEG that are named after a wanted level; null when there are none.

    levels: vertebral level to the label it gets. Frames are placed by their position in the patient, not by their order.
    ItemRefused: mask_unreadable, mask_ambiguous, mask_geometry_mismatch, and what sources.open_bytes raises.
    """
    with refusals("mask_unreadable"):
        dataset = open_dataset(path)
        kind = str(dataset.get("SegmentationType", ""))
        named = _levels_of(dataset, levels)
    if kind not in {"BINARY", "LABELMAP"}:
        raise ItemRefused("mask_unreadable", f"segmentation type {kind.lower() or 'absent'}")
    if not named:
        return None
    with refusals("mask_unreadable"):
        frames = frames_of(dataset)
        planes = [_plane(dataset, number) for number in range(len(frames))]
        masks = [_labelled(dataset, frame, number, named) for number, frame in enumerate(frames)]
    kept = [number for number, mask in enumerate(masks) if mask.any()]
    if not kept:
        return None
    try:
        return _placed([planes[n] for n in kept], [masks[n] for n in kept])
    except ItemRefused as refusal:
        raise ItemRefused("mask_geometry_mismatch", refusal.detail) from None


def _in_order(paths: Sequence[Location], n_threads: int, room: _Room) -> Iterator[list[_Slice]]:
    """The slices of each file in the order of the paths; the first file that is refused ends it."""
    if n_threads <= 1 or len(paths) <= 1:
        yield from (_slices(path, number, room) for number, path in enumerate(paths))
        return
    with ThreadPoolExecutor(min(n_threads, len(paths))) as pool:
        yield from pool.map(_slices, paths, range(len(paths)), itertools.repeat(room))


def _slices(path: Location, number: int, room: _Room) -> list[_Slice]:
    with refusals("decode_failed"):
        dataset = open_slice(path)
        frames = frames_of(dataset)
        padding = padding_of(dataset)
    found = []
    for place, stored in enumerate(frames):
        with refusals("geometry_changed"):
            plane = _plane(dataset, place)
        if not plane.slope or plane.intercept is None or not np.isfinite([plane.slope, plane.intercept]).all():
            raise ItemRefused("decode_failed", "no rescale slope and intercept: HU are not known")
        hu = room.slice(number, stored.shape) if len(frames) == 1 else np.empty(stored.shape, np.float32)
        found.append(_Slice(plane, hu, _to_hu(stored, plane, padding, hu=hu)))
    return found


def _to_hu(
    stored: Stored, plane: _Plane, padding: tuple[float, float] | None, *, hu: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_] | None:
    """Fill a slice with HU, padding with -1024; where padding is, null for nowhere. One value alone shows nothing: padding."""
    assert plane.slope is not None
    assert plane.intercept is not None
    slope, intercept = np.float32(plane.slope), np.float32(plane.intercept)
    if stored.dtype.itemsize > 2:  # float32 does not hold them all
        hu[...] = stored * slope + intercept
    elif slope == 1:
        np.add(stored, intercept, out=hu)
    else:
        np.add(np.multiply(stored, slope, out=hu), intercept, out=hu)
    if _is_even(stored):
        hu[...] = AIR_HU
        return np.ones(stored.shape, np.bool_)
    if padding is None or not max(plane.slope * end + plane.intercept for end in padding) < PADDING_BELOW_HU:
        return None
    outside: npt.NDArray[np.bool_] = (stored >= padding[0]) & (stored <= padding[1])
    if not outside.any():
        return None
    hu[outside] = AIR_HU
    return outside


def _is_even(stored: Stored) -> bool:
    """Whether every pixel holds the same value; nearly always a few of them say no."""
    return all(bool((part == part.flat[0]).all()) for part in (stored[::EVEN_STEP, ::EVEN_STEP], stored))


def _plane(dataset: Any, number: int) -> _Plane:
    if "PerFrameFunctionalGroupsSequence" in dataset:
        groups = [dataset.PerFrameFunctionalGroupsSequence[number], *dataset.get("SharedFunctionalGroupsSequence", [])]
    else:
        groups = []
    place, turn = _group(groups, "PlanePositionSequence", dataset), _group(groups, "PlaneOrientationSequence", dataset)
    measures, rescale = _group(groups, "PixelMeasuresSequence", dataset), dataset
    if groups:
        rescale = _group(groups, "PixelValueTransformationSequence", dataset)
    cosines = np.array(turn.ImageOrientationPatient, float)
    row_spacing, column_spacing = (float(value) for value in measures.PixelSpacing)
    position = np.array(place.ImagePositionPatient, float)
    if not (np.isfinite([*cosines, *position]).all() and row_spacing > 0 and column_spacing > 0):
        raise ItemRefused("geometry_changed", "position, orientation or spacing is no number")
    return _Plane(
        position=position,
        # PixelSpacing: first the distance between rows, then between columns; the second three cosines lead from row to row
        rows=cosines[3:] * row_spacing,
        columns=cosines[:3] * column_spacing,
        thickness=declared(measures, "SliceThickness"),
        spacing=declared(measures, "SpacingBetweenSlices"),
        slope=declared(rescale, "RescaleSlope"),
        intercept=declared(rescale, "RescaleIntercept"),
        kvp_kv=_kvp(_group(groups, "CTXRayDetailsSequence", dataset)),
        height_m=_height_m(dataset),
        sex=SEXES.get(str(dataset.get("PatientSex") or "").strip().upper()),
    )


def _height_m(dataset: Any) -> float | None:
    """Height between 1.2 and 2.2 m; null for what else stands there, such as centimetres (methods I1)."""
    with contextlib.suppress(ValueError, TypeError):  # a value that is no number must not cost the images
        value = dataset.get("PatientSize")
        if isinstance(value, int | float) and HEIGHTS_M[0] <= value <= HEIGHTS_M[1]:
            return float(value)
    return None


def _kvp(details: Any) -> float | None:
    """The one tube voltage above zero; null without one (methods I3)."""
    value = details.get("KVP")
    return float(value) if isinstance(value, int | float) and 0 < value < np.inf else None


def _group(groups: list[Any], name: str, dataset: Any) -> Any:
    """The functional group of a frame, its own before the shared one; the data set itself in single-frame objects."""
    for group in groups:
        if name in group:
            return group[name].value[0]
    return dataset


def _refuse_mixed(slices: Sequence[_Slice]) -> None:
    first, shape = slices[0].plane, slices[0].image.shape
    scale = np.concatenate([first.rows, first.columns])
    length = float(np.linalg.norm(scale))
    for piece in slices:
        if piece.image.shape != shape:
            raise ItemRefused("geometry_changed", "slices of different size")
        other = np.concatenate([piece.plane.rows, piece.plane.columns])
        if np.abs(other - scale).max() > max(SAME_DIRECTION, SAME_SPACING) * length:
            raise ItemRefused("geometry_changed", "slices of different spacing or orientation")
    if abs(float(first.rows @ first.columns)) > SAME_DIRECTION * length**2:
        raise ItemRefused("geometry_changed", "rows and columns are not at right angles")


def _n_empty(slices: Sequence[_Slice], stack: Stack) -> int:
    """Slices without an image between others that have one; beyond them nothing is missed."""
    showing = [int(place) for piece, place in zip(slices, stack.places, strict=True) if not piece.is_empty]
    within = range(min(showing), max(showing)) if showing else range(0)
    return sum(piece.is_empty and int(place) in within for piece, place in zip(slices, stack.places, strict=True))


def _fill(slices: Sequence[_Slice], stack: Stack, room: _Room) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]:
    """HU on the grid, and what of it is padding; null where nothing is."""
    places = np.asarray(stack.places)
    shape = (stack.n_slices, *slices[0].image.shape)
    # of n files in order with one slice each, every slice lies where it belongs
    if room.whole is not None and room.whole.shape == shape and np.array_equal(places, np.arange(len(slices))):
        hu = room.whole
    else:
        hu = empty(shape, np.float32)
        for piece, place in zip(slices, places, strict=True):
            hu[place] = piece.image
    missing = np.setdiff1d(np.arange(stack.n_slices), places)
    if not len(missing) and all(piece.is_padding is None for piece in slices):
        return hu, None
    is_padding = np.zeros(hu.shape, np.bool_)
    hu[missing], is_padding[missing] = AIR_HU, True
    for piece, place in zip(slices, places, strict=True):
        if piece.is_padding is not None:
            is_padding[place] = piece.is_padding
    return hu, is_padding


def _levels_of(dataset: Any, levels: Mapping[str, int]) -> dict[int, int]:
    """Segment number to label, for segments named after a wanted level; mask_ambiguous when two claim one level."""
    found: dict[int, int] = {}
    for segment in dataset.get("SegmentSequence", []):
        codes = segment.get("SegmentedPropertyTypeCodeSequence", [])
        texts = [str(segment.get("SegmentLabel", "")), *(str(code.get("CodeMeaning", "")) for code in codes)]
        level = next((level for level in map(structure_named, texts) if level is not None), None)
        if level is not None and level in levels:
            if levels[level] in found.values():
                raise ItemRefused("mask_ambiguous", f"two segments are named {level}")
            found[int(segment.SegmentNumber)] = levels[level]
    return found


def _labelled(dataset: Any, frame: Stored, number: int, named: Mapping[int, int]) -> npt.NDArray[np.int32]:
    if dataset.SegmentationType == "LABELMAP":
        mask = np.zeros(frame.shape, np.int32)
        for segment, label in named.items():
            mask[frame == segment] = label
        return mask
    groups = [dataset.PerFrameFunctionalGroupsSequence[number], *dataset.get("SharedFunctionalGroupsSequence", [])]
    segment = int(_group(groups, "SegmentIdentificationSequence", dataset).ReferencedSegmentNumber)
    return np.where(frame != 0, np.int32(named.get(segment, 0)), np.int32(0))


def _placed(planes: Sequence[_Plane], masks: Sequence[npt.NDArray[np.int32]]) -> LabelGrid:
    first = planes[0]
    _refuse_mixed([_Slice(plane, mask) for plane, mask in zip(planes, masks, strict=True)])
    positions = np.array([plane.position for plane in planes])
    # several segments share a position: one place for each height, and its frames laid over one another
    _, representative, place_of = np.unique(np.round(positions @ first.normal, 3), return_index=True, return_inverse=True)
    steps = tuple(step for step in (first.spacing, first.thickness) if step is not None)
    stack = regular_stack(positions[representative], first.normal, thickness=next(iter(steps), None), steps=steps)
    labels = np.zeros((stack.n_slices, *masks[0].shape), np.int32)
    for mask, place in zip(masks, stack.places[place_of.ravel()], strict=True):
        labels[place] = np.where(labels[place] > 0, labels[place], mask)
    return LabelGrid(labels, affine_of(stack, rows=first.rows, columns=first.columns))
