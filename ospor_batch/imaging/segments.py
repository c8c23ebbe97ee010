"""The vertebral level or the tissue that the name of a segment stands for."""

from __future__ import annotations

import re

# as written by dcmqi, highdicom, 3D Slicer, TotalSegmentator and in SNOMED CT's meanings ("First lumbar vertebra")
ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
    "tenth": 10, "eleventh": 11, "twelfth": 12,
}  # fmt: skip
SPINES = {"lumbar": "L", "thoracic": "T"}
# what may stand beside a level without changing it; "disc" or "pedicle" are not the vertebral body
SILENT = {"vertebra", "vertebrae", "vertebral", "body", "bone", "structure", "spine", "of", "the", "level"}
TISSUES: dict[str, list[set[str]]] = {
    "muscle": [{"muscle"}, {"skeletal", "muscle"}],
    "visceral_fat": [{"visceral", "fat"}, {"visceral", "adipose", "tissue"}],
    "fat": [{"fat"}, {"subcutaneous", "fat"}, {"adipose", "tissue"}, {"subcutaneous", "adipose", "tissue"}],
}
LEVEL = re.compile(r"^([lt])0?(\d{1,2})$")
NTH = re.compile(r"^(\d{1,2})(?:st|nd|rd|th)$")


def level_named(text: str) -> str | None:
    """The one level that a name means ("L1", "vertebrae_L1", "First lumbar vertebra"); null for anything else."""
    levels: set[str] = set()
    spine, number = "", 0
    for word in re.findall(r"[a-z0-9]+", text.lower()):
        if found := LEVEL.match(word):
            levels.add(f"{found[1].upper()}{int(found[2])}")
        elif word in SPINES:
            spine = SPINES[word]
        elif word in ORDINALS or NTH.match(word) or word.isdigit():
            number = ORDINALS.get(word) or int(re.sub(r"\D", "", word))
        elif word not in SILENT:
            return None
    if spine and number:
        levels.add(f"{spine}{number}")
    if not spine and number:
        return None
    return levels.pop() if len(levels) == 1 else None


def tissue_named(text: str) -> str | None:
    """The one tissue that a name means ("muscle", "Skeletal muscle", "Adipose tissue"); null for anything else."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return next((tissue for tissue, names in TISSUES.items() if words in names), None)


def structure_named(text: str) -> str | None:
    """The level or tissue that a name means."""
    return level_named(text) or tissue_named(text)
