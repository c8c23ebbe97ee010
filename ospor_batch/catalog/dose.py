"""Whether a CT of the chest was taken at low dose, as in screening for lung cancer, and what says so."""

from __future__ import annotations

from collections.abc import Sequence

from ospor_batch.catalog.vocabulary import Vocabulary, vocabulary

# CMS decision CAG-00439N (2015, NCD 210.14) and the ACR-STR practice parameter: at most 3.0 mGy in a standard patient (170 cm,
# 70 kg), more in larger ones; among 563 screening scans only overweight people had more (AJR 2017, PMC9675046).
LOW_CTDIVOL_MGY = 3.0
# Declared judgement, where neither CTDIvol nor description tells: screening scans were taken at 40-80 mA, routine chest CT with
# modulation well above 120 mA; what lies between is unknown. Exposure (mAs) is not used: vendors fill it in different ways.
LOW_CURRENT_MA = 80.0
ROUTINE_CURRENT_MA = 120.0
CHEST = ("chest", "chest_abdomen")


def dose_class(
    *,
    region: str,
    ctdivol_mgy: float | None,
    current_ma: float | None,
    descriptions: Sequence[str | None],
    words: Vocabulary | None = None,
) -> tuple[str | None, str | None, list[str]]:
    """low, standard or unknown, what the verdict rests on, and findings; null for series that are no CT of the chest.

    A scan described as low dose stays one above 3.0 mGy, as large patients need more; a finding says so.
    """
    if region not in CHEST:
        return None, None, []
    is_said = any((words or vocabulary()).says(text, "low_dose") for text in descriptions)
    if ctdivol_mgy:
        if ctdivol_mgy <= LOW_CTDIVOL_MGY:
            return "low", "ctdivol", []
        return ("low", "description", ["low_dose_above_limit"]) if is_said else ("standard", "ctdivol", [])
    if is_said:
        return "low", "description", []
    if current_ma and current_ma <= LOW_CURRENT_MA:
        return "low", "tube_current", []
    if current_ma and current_ma >= ROUTINE_CURRENT_MA:
        return "standard", "tube_current", []
    return "unknown", None, []
