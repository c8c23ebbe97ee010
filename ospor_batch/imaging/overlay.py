"""A volume under its labels as two small pictures, side to side: a sagittal and an axial slice, to look whether masks fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.orientation import canonical
from ospor_batch.imaging.volume import Array, Volume

Picture = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
SIDE = 240  # pixels of each picture
SAGITTAL_MM, AXIAL_MM = 240.0, 400.0  # of the field that is shown
WINDOW_HU = (-160.0, 400.0)  # fat to bright bone
SHARE = 0.3  # of the colour inside an outline
# One after the other for levels from head to foot, so that neighbours differ; then tissues
LEVEL_COLOURS: tuple[Colour, ...] = (
    (255, 99, 71),
    (64, 224, 208),
    (255, 215, 0),
    (186, 85, 211),
    (124, 252, 0),
    (30, 144, 255),
)
TISSUE_COLOURS: Mapping[str, Colour] = {"muscle": (220, 60, 60), "fat": (240, 220, 90), "visceral_fat": (240, 150, 60)}


def colours_of(levels: Mapping[str, int], tissues: Mapping[str, int]) -> dict[int, Colour]:
    """A colour for each label; levels from head to foot."""
    found = {label: LEVEL_COLOURS[at % len(LEVEL_COLOURS)] for at, label in enumerate(levels.values())}
    return found | {label: TISSUE_COLOURS[tissue] for tissue, label in tissues.items()}


def overlay(
    volume: Volume, labels: npt.NDArray[np.int32], *, levels: Mapping[str, int], tissues: Mapping[str, int] | None = None
) -> Picture:
    """Sagittal and axial slice through the labelled levels, (row, column, colour); head up, front and patient's right left.

    ItemRefused levels_missing when no level is in view.
    """
    turned, own = canonical(volume, labels)
    assert own is not None
    found = {level: np.argwhere(own == label).mean(axis=0) for level, label in levels.items() if (own == label).any()}
    if not found:
        raise ItemRefused("levels_missing", f"none of {', '.join(levels)} in the images")
    spacing = np.array(turned.spacing)
    middle = np.mean(list(found.values()), axis=0)
    level = found[list(found)[len(found) // 2]]
    trunk = np.array([level[0], middle[1] - 30 / spacing[1], (turned.hu.shape[2] - 1) / 2])  # the spine lies behind the middle
    colours = colours_of(levels, tissues or {})
    sagittal = _picture(turned.hu[:, :, round(middle[2])], own[:, :, round(middle[2])], colours,
                        at=middle[:2], spacing=spacing[:2], field_mm=SAGITTAL_MM)  # fmt: skip
    axial = _picture(turned.hu[round(level[0])], own[round(level[0])], colours,
                     at=trunk[1:], spacing=spacing[1:], field_mm=AXIAL_MM)  # fmt: skip
    return np.concatenate([sagittal[::-1], axial], axis=1)  # slices climb to the head


def _picture(
    hu: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], colours: Mapping[int, Colour], *,
    at: Array, spacing: Array, field_mm: float,
) -> Picture:  # fmt: skip
    """A square field of mm around a place; black where nothing was imaged."""
    mm = (np.arange(SIDE) + 0.5) / SIDE * field_mm - field_mm / 2
    index = [np.rint(middle + mm / step).astype(int) for middle, step in zip(at, spacing, strict=True)]
    inside = [(one >= 0) & (one < size) for one, size in zip(index, hu.shape, strict=True)]
    clipped = np.ix_(*(np.clip(one, 0, size - 1) for one, size in zip(index, hu.shape, strict=True)))
    is_imaged = inside[0][:, None] & inside[1][None, :]
    low, high = WINDOW_HU
    gray = np.clip((hu[clipped] - low) / (high - low), 0, 1) * 255 * is_imaged
    picture = np.repeat(gray[..., None], 3, axis=2)
    shown = labels[clipped] * is_imaged
    for label, colour in colours.items():
        is_label = shown == label
        share = np.where(is_label & ~_inner(is_label), 1.0, SHARE * is_label)[..., None]
        picture = (1 - share) * picture + share * np.array(colour)
    found: Picture = np.rint(picture).astype(np.uint8)
    return found


def _inner(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    inner = mask.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            inner &= np.roll(mask, step, axis=axis)
    return inner
