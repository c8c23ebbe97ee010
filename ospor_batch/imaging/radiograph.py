"""DICOM radiographs to one gray scale: bright is dense, 0 to 1 within the exposed field, whatever the vendor stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.coarse import coarse_frame
from ospor_batch.imaging.decoding import declared, frames_of, open_dataset, padding_of, refusals
from ospor_batch.imaging.tones import Tones, coded, mapped, toned
from ospor_batch.sources import Location

FOR_PROCESSING = {
    "1.2.840.10008.5.1.4.1.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.1.3.1",
}  # PS3.4 B.5
SPACINGS = ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing")  # at the detector before any calibrated one
# None of the following stands in a paper; they are declared here and moved by no study
FIELD_ENDS = (0.01, 0.99)  # quantiles of the field that become 0 and 1
LINE_ENDS = (0.05, 0.95)  # quantiles of a row or column whose distance says whether it shows something
FLAT = 0.02  # share of the image's range below which a border row or column shows nothing
MOST_CROPPED = 0.45  # share of a side that may be cut; more is no border
FEWEST_LEVELS = 16  # gray values of an image that shows something
MOST_CLIPPED = 0.6  # share of the field at one end of the scale
COARSE = 32  # blocks a side on which the view is judged
LEAST_RIDGE = 0.04  # of the gray scale: frontal chests, real and generated, show 0.06 and more, lateral ones at most 0.02
SAMPLES = 2**18  # pixels, evenly strewn, that stand for an image where percentiles are taken
LINE_SAMPLES = 256  # pixels of a row or column that say whether it shows something
Gray = npt.NDArray[np.float32]
Field = tuple[int, int, int, int]


@dataclass(frozen=True)
class Radiograph:
    """One radiograph, cropped to its exposed field.

    image: float32 (row, column), 0 to 1, bright where the patient is dense, the patient's left on the right.
    spacing_mm: of rows and columns at the detector; null when the header has none that can be.
    field: first and last (exclusive) row, then column, of the stored image (turned as this one is).
    flags: monochrome1, for_processing, voi_lut, voi_not_used, turned, cropped, padded, clipped, spacing_missing,
    several_images, looks_inverted, looks_lateral; what was done, or what should be looked at.
    """

    image: Gray
    spacing_mm: tuple[float, float] | None
    field: Field
    flags: tuple[str, ...]


def read_radiograph(paths: Sequence[Location], *, least_pixels: int = 0) -> Radiograph:
    """Read the one frontal radiograph of a series.

    least_pixels: that the shorter side of an image keeps which may be decoded at a part of its resolution (coarse.py); 0 for
    the whole. The image then has fewer pixels, wider apart; its field stays that of the stored image.
    ItemRefused: decode_failed, several_radiographs, image_blank, image_saturated, and what sources.open_bytes raises.
    """
    with refusals("decode_failed"):
        datasets = [open_dataset(path) for path in paths]
        frontal = datasets if len(datasets) == 1 else [d for d in datasets if not _is_lateral(d)]
    if not datasets:
        raise ItemRefused("decode_failed", "no images")
    if len(frontal) != 1:
        raise ItemRefused("several_radiographs", f"{len(frontal)} of {len(datasets)} images may be the frontal view")
    with refusals("decode_failed"):
        coarse = coarse_frame(frontal[0], least_pixels=least_pixels) if least_pixels else None
        tones, is_padding, flags = _dense_is_high(frontal[0], None if coarse is None else coarse[0][None])
        (codes, is_padding), is_turned = _upright(frontal[0], tones.codes, is_padding)
        times = 1 if coarse is None else 2 ** coarse[1]
        spacing = _spacing_mm(frontal[0], times)
    done = [
        *flags,
        *["turned"] * is_turned,
        *["several_images"] * (len(datasets) > 1),
        *["spacing_missing"] * (spacing is None),
    ]
    image, field, seen = _normalised(Tones(codes, tones.levels), is_padding)
    if times > 1:
        (top, bottom, left, right), n_rows, n_columns = field, int(frontal[0].Rows), int(frontal[0].Columns)
        field = times * top, min(times * bottom, n_rows), times * left, min(times * right, n_columns)
    return Radiograph(image=image, spacing_mm=spacing, field=field, flags=(*done, *seen))


def normalised(values: npt.NDArray[Any], *, is_padding: npt.NDArray[np.bool_] | None = None) -> tuple[Gray, Field, list[str]]:
    """Crop to the exposed field and bring its percentiles to 0 and 1; values: high where the patient is dense.

    Returns the image, its field and flags. ItemRefused: image_blank, image_saturated.
    """
    codes, found = coded(values)
    return _normalised(toned(codes, np.asarray(found, np.float64)), is_padding)


def _normalised(tones: Tones, is_padding: npt.NDArray[np.bool_] | None) -> tuple[Gray, Field, list[str]]:
    tones = Tones(tones.codes, tones.levels.astype(np.float32))
    is_seen = _seen(tones, is_padding)
    inside = _flat(tones.codes, is_seen)
    if not len(inside) or tones.n_levels(_sampled(inside)) < FEWEST_LEVELS:
        raise ItemRefused("image_blank", "too few gray values to show anything")
    whole = tones if is_seen is None else Tones(np.where(is_seen, tones.codes, inside.min()), tones.levels)
    top, bottom, left, right = field = _exposed(whole)
    cut, seen = whole.codes[top:bottom, left:right], None if is_seen is None else is_seen[top:bottom, left:right]
    inside = _flat(cut, seen)
    low, high = (float(end) for end in tones.quantiles(_sampled(inside), FIELD_ENDS))
    at_end = tones.share_at_an_end(inside)
    if at_end > MOST_CLIPPED:
        raise ItemRefused("image_saturated", f"{100 * at_end:.0f} % of the field at one end of the gray scale")
    if not high > low:
        raise ItemRefused("image_blank", "no contrast between the percentiles of the field")
    image = mapped(cut, np.clip((tones.levels - low) / (high - low), 0, 1).astype(np.float32))
    is_padded = seen is not None and not seen.all()
    if seen is not None and is_padded:
        image[~seen] = 0
    flags = ["cropped"] * (field != (0, tones.codes.shape[0], 0, tones.codes.shape[1])) + ["padded"] * is_padded
    flags += ["clipped"] * (at_end > MOST_CLIPPED / 2)
    return image, field, flags + looks(image)


def _seen(tones: Tones, is_padding: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_] | None:
    """Pixels that show something; null where all do."""
    is_finite = np.isfinite(tones.levels)
    seen = None if is_finite.all() else mapped(tones.codes, is_finite)
    if is_padding is None or not is_padding.any():
        return seen
    return ~is_padding if seen is None else seen & ~is_padding


def _flat(codes: npt.NDArray[np.integer], is_seen: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.integer]:
    return np.ascontiguousarray(codes).reshape(-1) if is_seen is None else codes[is_seen]


def looks(image: Gray) -> list[str]:
    """What the pixels say of the view: looks_lateral, or else looks_inverted when the middle is less dense than the lungs."""
    coarse = shrunk(image, COARSE)
    lungs = np.concatenate([coarse[10:20, 6:11], coarse[10:20, 21:26]])  # of 32: a third to five eighths of the height
    is_inverted = bool(np.median(coarse[10:24, 15:17]) < np.median(lungs))
    upright = 1 - coarse if is_inverted else coarse
    if _spine_ridge(upright) < LEAST_RIDGE:
        return ["looks_lateral"]  # whose middle says nothing of its scale
    return ["looks_inverted"] * is_inverted


def shrunk(image: Gray, size: int) -> Gray:
    """Mean over blocks, size x size; for judging, not for networks."""
    n_rows, n_columns = image.shape
    rows = np.minimum(np.arange(size) * n_rows // size, n_rows - 1)
    columns = np.minimum(np.arange(size) * n_columns // size, n_columns - 1)
    ends = np.maximum([*rows[1:], n_rows], rows + 1)
    of_rows = np.stack([image[first:last].sum(axis=0, dtype=np.float64) for first, last in zip(rows, ends, strict=True)])
    sums = np.add.reduceat(of_rows, columns, axis=1)
    counts = np.outer(np.diff([*rows, n_rows]).clip(1), np.diff([*columns, n_columns]).clip(1))
    return np.asarray(sums / counts, np.float32)


def _spine_ridge(coarse: Gray) -> float:
    """How far a column near the middle stands over both its sides, in the rows of the lungs (30th percentile of them)."""
    rows = coarse[6:19]
    found = []
    for middle in range(12, 20):
        sides = np.maximum(rows[:, middle - 7 : middle - 3].mean(axis=1), rows[:, middle + 4 : middle + 8].mean(axis=1))
        found.append(float(np.quantile(rows[:, middle - 1 : middle + 2].mean(axis=1) - sides, 0.3)))
    return max(found)


def _exposed(tones: Tones) -> Field:
    """The box without the borders that show nothing: shutters, and air beside the patient."""
    codes = tones.codes
    least = FLAT * float(np.ptp(tones.quantiles(_sampled(_flat(codes, None)), FIELD_ENDS)))
    box = [0, codes.shape[0], 0, codes.shape[1]]
    for _ in range(2):  # a shutter at the side hides how flat one at the top is, and the other way round
        before = tuple(box)
        for axis in (0, 1):
            part = codes[box[0] : box[1], box[2] : box[3]]
            part = part[:, :: -(-part.shape[1] // LINE_SAMPLES)] if axis == 0 else part[:: -(-part.shape[0] // LINE_SAMPLES)]
            spread = np.ptp(tones.quantiles(part, LINE_ENDS, axis=1 - axis), axis=0)
            shows = np.flatnonzero(spread > least)
            first, last = (int(shows[0]), int(shows[-1]) + 1) if len(shows) else (0, len(spread))
            most = int(MOST_CROPPED * len(spread))
            start = box[2 * axis]
            box[2 * axis] = start + (first if first <= most else 0)
            box[2 * axis + 1] = start + (last if len(spread) - last <= most else len(spread))
        if tuple(box) == before:
            break
    return box[0], box[1], box[2], box[3]


def _sampled(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Evenly strewn members of a flat array; the stride is odd, so that it does not follow the columns of an image."""
    return values[:: (len(values) // SAMPLES) | 1]


def _dense_is_high(
    dataset: Any, frames: npt.NDArray[np.integer] | None = None
) -> tuple[Tones, npt.NDArray[np.bool_] | None, list[str]]:
    """Levels that rise with density, after modality LUT, VOI LUT and photometric interpretation; padding; what was done.

    frames: stored values, where they were decoded otherwise.
    """
    frames = frames_of(dataset) if frames is None else frames
    if len(frames) != 1:
        raise ItemRefused("several_radiographs", f"{len(frames)} frames in one object")
    stored, padding = frames[0], padding_of(dataset)
    is_padding = None if padding is None else (stored >= padding[0]) & (stored <= padding[1])
    codes, found = coded(stored)
    values = np.asarray(apply_modality_lut(found, dataset), np.float64)
    if str(dataset.get("SOPClassUID", "")) in FOR_PROCESSING:
        return toned(codes, _from_detector(dataset, values)), is_padding, ["for_processing"]
    shown, flags = _as_displayed(dataset, values, codes=codes, is_padding=is_padding)
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if kind not in {"MONOCHROME1", "MONOCHROME2"}:
        raise ItemRefused("decode_failed", "photometric interpretation is neither MONOCHROME1 nor MONOCHROME2")
    if kind == "MONOCHROME1":
        return toned(codes, -shown), is_padding, ["monochrome1", *flags]
    return toned(codes, shown), is_padding, flags


def _from_detector(dataset: Any, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A for-processing image: the logarithm of a linear signal, turned by the declared sign (-1: high means little signal)."""
    if str(dataset.get("PixelIntensityRelationship", "")) == "LIN":
        values = np.log(np.maximum(values, 1.0))
    sign = declared(dataset, "PixelIntensityRelationshipSign")
    is_signal = sign > 0 if sign else str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1"
    return -values if is_signal else values


def _as_displayed(
    dataset: Any, values: npt.NDArray[np.float64], *, codes: npt.NDArray[np.integer], is_padding: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """The values through the first VOI LUT or window; as they are when there is none or when it hides most of the image."""
    has_table = bool(dataset.get("VOILUTSequence"))
    if not has_table and dataset.get("WindowCenter") in (None, ""):
        return values, []
    try:
        shown = np.asarray(apply_voi_lut(np.rint(values).astype(np.int64) if has_table else values, dataset), np.float64)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError):
        return values, ["voi_not_used"]  # a broken window must not cost the image
    tones = toned(codes, shown)
    inside = _flat(tones.codes, None if is_padding is None or not is_padding.any() else ~is_padding)
    return (values, ["voi_not_used"]) if tones.share_at_an_end(inside) > MOST_CLIPPED else (shown, ["voi_lut"])


def _upright(dataset: Any, *arrays: npt.NDArray[Any] | None) -> tuple[list[Any], bool]:
    """Rows run to the patient's left and columns to the feet, as the header says; unchanged when it is silent."""
    runs = dataset.get("PatientOrientation") or ["L", "F"]
    to_flip = tuple(axis for axis, letter in ((1, "R"), (0, "H")) if len(runs) == 2 and str(runs[1 - axis])[:1] == letter)
    return [a if a is None or not to_flip else np.flip(a, to_flip) for a in arrays], bool(to_flip)


def _is_lateral(dataset: Any) -> bool:
    runs = dataset.get("PatientOrientation") or [""]
    return str(dataset.get("ViewPosition", "")).upper() in {"LL", "RL", "LAT", "LATERAL"} or str(runs[0])[:1] in {"A", "P"}


def _spacing_mm(dataset: Any, times: int = 1) -> tuple[float, float] | None:
    for name in SPACINGS:
        values = [float(value) for value in dataset.get(name) or ()]
        if len(values) == 2 and all(np.isfinite(value) and value > 0 for value in values):
            return times * values[0], times * values[1]
    return None
