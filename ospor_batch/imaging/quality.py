"""Whether a CT volume shows anything and its scale is whole; what does not is refused before anybody measures in it.

The header says what the stored values could hold (catalog.quality); only the pixels say what they do hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.orientation import BODY_HU

# None of the following stands in a paper; they are declared here and moved by no study
SAMPLES = 2**16  # voxels, evenly strewn, that stand for a volume
LEAST_BODY = 0.005  # share of the voxels that are no air: a forearm in a field of 500 mm fills 0.01 of it
FEWEST_VALUES = 16  # different HU; the noise of any scanner spreads air and tissue over hundreds
# A scale reaches cortical bone (catalog.quality asks as much of the header) or was cut by whoever wrote it: windows for soft
# tissue end at 240 to 400 HU, and would leave 0.009 to 0.16 of the body of the real scans there
WHOLE_HU = 1000.0
MOST_CUT = 0.005  # share of the body at the top of a scale that ends below WHOLE_HU; real scans have 0.00002 at theirs
# metal at the top of a whole scale: 0.007 of the body in a real slice of hips; rods and a cage in a crop of one vertebra 0.1
MOST_METAL = 0.25
FLOOR_HU = -500.0  # air reads -1000 and lung -900 to -500: a scale that begins above has lost both, and a pile there shows it
FEW = 1024  # of the sample, sorted before all of it is
FEWEST_AT_END = 64  # voxels of the sample; fewer at an end are chance
Sample = npt.NDArray[np.float32]


def refuse_without_image(hu: npt.NDArray[np.float32], is_padding: npt.NDArray[np.bool_] | None = None) -> None:
    """Refuse a volume in HU that cannot be measured in.

    ItemRefused: image_blank (padding, air or a few values alone), image_saturated (the top or the bottom of the scale is cut
    off where the body lies).
    """
    seen = _sampled(hu)
    if is_padding is not None:
        seen = seen[~_sampled(is_padding)]
    body = seen[seen > BODY_HU]
    if not len(seen):
        raise ItemRefused("image_blank", "padding alone, or no slice of more than one value")
    if len(body) <= LEAST_BODY * len(seen):
        raise ItemRefused("image_blank", f"nothing but air: no more than {100 * LEAST_BODY:g} % of the voxels are denser")
    top, bottom = float(body.max()), float(seen.min())
    at_top, at_bottom = (float(np.mean(part == end)) for part, end in ((body, top), (seen, bottom)))
    if top >= WHOLE_HU and at_top > MOST_METAL:
        raise ItemRefused("image_saturated", f"{100 * at_top:.0f} % of the body at {top:.0f} HU, the end of the scale")
    if len(np.unique(seen[:FEW])) < FEWEST_VALUES and len(np.unique(seen)) < FEWEST_VALUES:
        raise ItemRefused("image_blank", f"fewer than {FEWEST_VALUES} different HU")
    if top < WHOLE_HU and at_top > _most_cut(len(body)):
        raise ItemRefused("image_saturated", f"cut off: {100 * at_top:.1f} % of the body at {top:.0f} HU, none above")
    if bottom > FLOOR_HU and at_bottom > _most_cut(len(seen)):
        raise ItemRefused("image_saturated", f"cut off: {100 * at_bottom:.1f} % of the voxels at {bottom:.0f} HU, none below")


def _most_cut(n_voxels: int) -> float:
    return max(MOST_CUT, FEWEST_AT_END / n_voxels)


def _sampled(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Evenly strewn voxels; the stride is odd, so that it does not follow the columns of a slice."""
    flat = voxels.reshape(-1)
    return flat[:: (len(flat) // SAMPLES) | 1]
