"""The masks of a series, from where the recipe says: beside the images, our network, or TotalSegmentator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ospor_batch.errors import ItemRefused
from ospor_batch.evaluation.overlap import Overlap, overlap
from ospor_batch.imaging.levels import judged_levels, level_flags
from ospor_batch.imaging.masks import MaskFile, MaskRule, levels_on
from ospor_batch.imaging.volume import Volume

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Masked:
    """Labels on the volume's grid by the numbers of the rule, and flags (level_uncertain:L1 ...).

    overlaps: of segmented levels with the masks beside the images, where such masks hold the level.
    """

    labels: Labels
    flags: tuple[str, ...] = ()
    overlaps: Mapping[str, Overlap] = field(default_factory=dict)


def labels_of(volume: Volume, files: Iterable[MaskFile], *, rule: MaskRule, device: str = "cpu") -> Masked:
    """Find the labels of a series.

    ItemRefused: what imaging.masks raises; no_vertebra, volume_too_large, level_uncertain, levels_missing of a network.
    """
    if rule.source == "beside":
        labels = levels_on(volume, files, rule=rule)
        return Masked(labels, level_flags(judged_levels(volume, labels, levels=dict(rule.labels))))
    if rule.source == "unet":
        from ospor_batch.models.segmentation_folder import segmented
    else:
        from ospor_batch.models.totalsegmentator import segmented
    found, confidence = segmented(volume, rule=rule, device=device)
    uncertain = [level for level, _ in rule.labels if confidence.get(level, 1.0) < rule.least_confidence]
    for level in uncertain:
        found[found == dict(rule.labels)[level]] = 0
    levels = [level for level, label in rule.labels if (found == label).any()]
    if not levels and uncertain:
        least = f"{rule.least_confidence:g} (recipes.masks.least_confidence)"
        raise ItemRefused("level_uncertain", f"the level of {', '.join(uncertain)} has a confidence below {least}")
    if not levels:
        raise ItemRefused("levels_missing", f"none of {', '.join(level for level, _ in rule.labels)} was segmented")
    return Masked(found, tuple(f"level_uncertain:{level}" for level in uncertain), _overlaps(found, volume, files, rule))


def _overlaps(found: Labels, volume: Volume, files: Iterable[MaskFile], rule: MaskRule) -> dict[str, Overlap]:
    """Dice and HD95 of every level that a mask beside the images holds; none where there is no such mask."""
    try:
        truth = levels_on(volume, files, rule=rule)
    except ItemRefused:
        return {}  # a mask that cannot be read costs the comparison, not the series
    measured = {}
    for level, label in rule.labels:
        mine, true = found == label, truth == label
        if true.any():
            box = _box(mine | true)
            measured[level] = overlap(mine[box], true[box], spacing_mm=volume.spacing)
    return measured


def _box(mask: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    """Where a mask lies, a voxel wider: distances need no more."""
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(max(0, int(span[0]) - 1), int(span[-1]) + 2) for span in spans)
