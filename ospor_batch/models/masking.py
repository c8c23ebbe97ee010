"""The masks of a series, from where the recipe says: beside the images, our network, or TotalSegmentator."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.masks import MaskFile, MaskRule, levels_on
from ospor_batch.imaging.volume import Volume

Labels = npt.NDArray[np.int32]


def labels_of(
    volume: Volume, files: Iterable[MaskFile], *, rule: MaskRule, device: str = "cpu"
) -> tuple[Labels, tuple[str, ...]]:
    """Labels on the volume's grid by the numbers of the rule, and flags (level_uncertain:L1 ...).

    ItemRefused: what imaging.masks raises; no_vertebra, volume_too_large, level_uncertain, levels_missing of a network.
    """
    if rule.source == "beside":
        return levels_on(volume, files, rule=rule), ()
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
    return found, tuple(f"level_uncertain:{level}" for level in uncertain)
