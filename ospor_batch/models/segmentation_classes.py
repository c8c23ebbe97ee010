"""What the segmentation network tells apart, and how these classes stand in a file of labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

THORACIC_WITHOUT_LEVEL = "T1-T9"  # bodies that no recipe measures: ribs alone would tell them apart
LEVELS = ("T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1")  # from head to foot
VERTEBRAE = (THORACIC_WITHOUT_LEVEL, *LEVELS)
TISSUES = ("muscle", "fat", "visceral_fat")
CLASSES = ("background", *VERTEBRAE, *TISSUES)
# Values in a file: vertebrae by the numbering of the VerSe challenge, tissues as the generator writes them
FILE_VALUES: Mapping[str, int] = {
    **{level: (7 + int(level[1:]) if level[0] == "T" else 19 + int(level[1:])) for level in LEVELS if level != "S1"},
    "S1": 26,
    "muscle": 100,
    "fat": 101,
    "visceral_fat": 102,
}
UPPER_VALUES = range(8, 17)  # T1 to T9
Labels = npt.NDArray[np.integer]


def classes_of(labels: Labels) -> npt.NDArray[np.uint8]:
    """Numbers of a file to the network's classes; a number that stands for none of them is background."""
    table = np.zeros(int(max(labels.max(initial=0), *FILE_VALUES.values())) + 1, np.uint8)
    for name, value in FILE_VALUES.items():
        table[value] = CLASSES.index(name)
    table[UPPER_VALUES.start : UPPER_VALUES.stop] = CLASSES.index(THORACIC_WITHOUT_LEVEL)
    found: npt.NDArray[np.uint8] = table[np.maximum(labels, 0)]
    return found
