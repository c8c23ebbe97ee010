"""The structures that the segmentation tells apart, what the network says of them, and their numbers in a file of labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

LEVELS = (*(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6)), "S1")  # from head to foot
TISSUES = ("muscle", "fat", "visceral_fat")
# Never handed out: the disc is learned so that it parts the bodies, ribs and what lies below S1 so that levels can be counted
DISC, RIB, SACRUM = "disc", "rib", "sacrum"
STRUCTURES = ("background", *LEVELS, *TISSUES, DISC, RIB, SACRUM)
# The network says of each voxel which kind it is and, as one number, which level a body has: levels follow one another, so
# that a number needs far fewer examples than a class for each
KINDS = ("background", "vertebra", *TISSUES, DISC, RIB, SACRUM)
KIND_OF = np.array([0, *(1,) * len(LEVELS), *range(2, len(KINDS))], np.uint8)  # by structure
# Values in a file: vertebrae by the numbering of the VerSe challenge, tissues as the generator writes them
FILE_VALUES: Mapping[str, int] = {
    **{level: 8 + place for place, level in enumerate(LEVELS[:-1])},
    "S1": 26,
    "muscle": 100,
    "fat": 101,
    "visceral_fat": 102,
}
Labels = npt.NDArray[np.integer]


def structures_of(labels: Labels) -> npt.NDArray[np.uint8]:
    """Numbers of a file to places in STRUCTURES; a number that stands for none of them is background."""
    table = np.zeros(int(max(labels.max(initial=0), *FILE_VALUES.values())) + 1, np.uint8)
    for name, value in FILE_VALUES.items():
        table[value] = STRUCTURES.index(name)
    found: npt.NDArray[np.uint8] = table[np.maximum(labels, 0)]
    return found
