"""Masks that stand beside the images: NIfTI and DICOM SEG onto the grid of the volume."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from nibabel import Nifti1Image, Nifti2Image
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.reader import read_segmentation
from ospor_batch.imaging.volume import LabelGrid, Volume, onto_volume
from ospor_batch.sources import Location, read_bytes

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
GZIP = b"\x1f\x8b"
NIFTI_2 = 540  # bytes of its header; NIfTI-1 has 348
ORDERS: tuple[Literal["little"], Literal["big"]] = ("little", "big")


@dataclass(frozen=True)
class MaskRule:
    """Which files are masks and which label is which level, as the recipe says.

    source: masks beside the images, those of a segmentation network, or TotalSegmentator's. pattern: glob over the name of
    NIfTI files. labels: (level, label), sorted; a DICOM SEG is read by its segments' names. tissues: (muscle or fat, label).
    version: of what segments: the digest of its folder. folder: where a network lies, in no digest. least_confidence: of
    the level of a segmented vertebra, below which it leaves.
    """

    pattern: str
    labels: tuple[tuple[str, int], ...]
    source: Literal["beside", "unet", "totalsegmentator"] = "beside"
    tissues: tuple[tuple[str, int], ...] = ()
    version: str = ""
    folder: str = ""
    least_confidence: float = 0.0

    @property
    def identity(self) -> dict[str, Any]:
        """All that can change a label, for the digests of what is read through it."""
        named = {"source": self.source, "labels": dict(self.labels), "tissues": dict(self.tissues)}
        if self.source == "beside":
            return named | {"pattern": self.pattern}
        return named | {"version": self.version, "least_confidence": self.least_confidence}


@dataclass(frozen=True)
class MaskFile:
    """One file beside the images."""

    path: Location
    kind: Literal["mask_nifti", "mask_dicom_seg"]


def levels_on(volume: Volume, files: Iterable[MaskFile], *, rule: MaskRule) -> npt.NDArray[np.int32]:
    """Labels of the wanted levels on the volume's grid, from the one file that holds them.

    ItemRefused: mask_missing, mask_unreadable, mask_geometry_mismatch, mask_ambiguous, levels_missing, and what
    sources.open_bytes raises.
    """
    levels = dict(rule.labels) | dict(rule.tissues)
    chosen = [f for f in files if f.kind == "mask_dicom_seg" or PurePosixPath(str(f.path)).match(rule.pattern)]
    if not chosen:
        raise ItemRefused("mask_missing", f"no mask beside the images (NIfTI pattern {rule.pattern})")
    grids, not_masks = [], []
    for file in chosen:
        try:
            if file.kind == "mask_dicom_seg":
                grids.append(read_segmentation(file.path, levels=levels))
            else:
                grids.append(read_nifti(file.path, labels=list(levels.values())))
        except _NotALabelMapError as refusal:
            not_masks.append(refusal)
    found = [grid for grid in grids if grid is not None]
    if len(found) > 1:
        raise ItemRefused("mask_ambiguous", f"{len(found)} files hold the wanted levels")
    if found:
        labels = onto_volume(found[0], volume)
        if labels.any():
            return labels
    if not_masks and not grids:
        raise ItemRefused(not_masks[0].reason, not_masks[0].detail)
    raise ItemRefused("levels_missing", f"none of {', '.join(levels)} in the mask")


class _NotALabelMapError(ItemRefused):
    """A NIfTI file that is an image and no map of labels; it does not stand in the way of one that is."""


def read_nifti(path: Location, *, labels: Sequence[int]) -> LabelGrid | None:
    """The wanted labels of a NIfTI file, whatever its suffix; null when it holds none of them.

    ItemRefused: mask_unreadable, mask_geometry_mismatch, and what sources.open_bytes raises.
    """
    image = _image(path)
    if not (image.header["sform_code"] or image.header["qform_code"]):
        raise ItemRefused("mask_geometry_mismatch", "neither sform nor qform says where the mask lies")
    try:
        values = np.squeeze(np.asanyarray(image.dataobj))
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise ItemRefused("mask_unreadable", type(error).__name__) from None
    if values.ndim != 3:
        raise ItemRefused("mask_geometry_mismatch", f"{values.ndim} dimensions, expected 3")
    if not _are_labels(values):
        raise _NotALabelMapError("mask_geometry_mismatch", "not a map of labels: fractions or negative values")
    turned = values.T  # NIfTI lies in Fortran order: as it stands on disk, one pass is four times as fast
    wanted = np.isin(turned, list(labels))
    if not wanted.any():
        return None
    kept = np.where(wanted, turned, 0).T
    return LabelGrid(kept.astype(np.int32) if kept.dtype.kind == "f" else kept, RAS_TO_LPS @ image.affine)


def _image(path: Location) -> Any:
    content = read_bytes(path)
    try:
        if content.startswith(GZIP):
            content = gzip.decompress(content)
        is_second = NIFTI_2 in {int.from_bytes(content[:4], order) for order in ORDERS}
        return (Nifti2Image if is_second else Nifti1Image).from_bytes(content)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, WrapStructError) as error:
        raise ItemRefused("mask_unreadable", type(error).__name__) from None


def _are_labels(values: npt.NDArray[Any]) -> bool:
    if values.dtype.kind not in "iuf" or not values.size:
        return False
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        return False
    return bool(values.min() >= 0)
