"""Which vertebrae of a series enter a recipe, and CT numbers as the networks see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.regions import Region, measure
from ospor_batch.imaging.vertebra_images import Place, place_of
from ospor_batch.models.spec import Parameter, Pixels
from ospor_batch.models.trainable import Answer, Array, Example, Parameters, Preparing

# What every recipe of vertebrae declares; none of it stands in an abstract
VERTEBRAE: dict[str, Parameter] = {
    "levels": ("L1", "L2", "L3", "L4"),
    "minimum_levels": 1,
    "takes_cut_levels": False,  # a vertebra that reaches the first or last slice
    "hu_low": -200.0,  # what lies below and above is clipped
    "hu_high": 600.0,
}
PREPARING = tuple(VERTEBRAE)


def entering(pixels: Pixels, preparing: Preparing) -> tuple[dict[str, Place], tuple[str, ...]]:
    """Places of the levels that enter, from head to foot, and flags of those that do not.

    ItemRefused: levels_missing, levels_cut where the rest is too few because they reach the edge of view.
    """
    volume, labels, parameters = pixels.volume, pixels.labels, preparing.parameters
    assert volume is not None
    assert labels is not None  # registry: the recipe reads masks
    known, wanted = dict(preparing.masks.labels), parameters["levels"]
    assert isinstance(wanted, tuple)
    found: dict[str, Place] = {}
    flags, n_cut = list(pixels.mask_flags), 0
    for level in wanted:
        place = place_of(volume, labels, label=known[level])
        if place is None:
            flags.append(f"level_missing:{level}")
        elif place.is_cut and not parameters["takes_cut_levels"]:
            flags.append(f"level_cut:{level}")
            n_cut += 1
        else:
            found[level] = place
    least = int(str(parameters["minimum_levels"]))
    if len(found) < least:
        said = f"{len(found)} of {', '.join(wanted)} in view, expected at least {least}"
        raise ItemRefused("levels_cut" if len(found) + n_cut >= least else "levels_missing", said)
    if volume.n_missing_slices:
        flags.append(f"slices_missing:{volume.n_missing_slices}")
    return found, tuple(flags)


def measured(pixels: Pixels, preparing: Preparing) -> tuple[Region, ...]:
    """Plain HU of every labelled level, for the table of vertebrae."""
    return regions_of(pixels, dict(preparing.masks.labels))


def regions_of(pixels: Pixels, levels: Mapping[str, int]) -> tuple[Region, ...]:
    """Plain HU of every labelled level, and how its mask overlaps with the one beside the images."""
    assert pixels.volume is not None
    assert pixels.labels is not None
    found = []
    for region in measure(pixels.volume, pixels.labels, levels=levels):
        of = pixels.overlaps.get(region.level)
        found.append(region if of is None else replace(region, dice=of.dice, hd95_mm=of.hd95_mm))
    return tuple(found)


def scaled(hu: npt.NDArray[Any], parameters: Parameters) -> npt.NDArray[np.float16]:
    """HU between hu_low and hu_high to -1 and 1."""
    low, high = float(str(parameters["hu_low"])), float(str(parameters["hu_high"]))
    found: npt.NDArray[np.float16] = (2 * (np.clip(hu, low, high) - low) / (high - low) - 1).astype(np.float16)
    return found


def level_values(values: Array, example: Example) -> dict[str, float]:
    """Mean over the images of each level; a unit is named by its level, with what follows a colon left out."""
    levels = [unit.split(":")[0] for unit in example.units]
    return {level: float(np.mean([v for v, of in zip(values, levels, strict=True) if of == level])) for level in example.levels}


def aggregated(values: Mapping[str, float], rule: str) -> float:
    """One value a patient from those of the vertebrae, each of which weighs the same."""
    found = np.mean(list(values.values())) if rule == "mean" else np.median(list(values.values()))
    return float(found)


def check_vertebrae(parameters: Parameters) -> None:
    """StudyError where the parameters of ``entering`` and ``scaled`` cannot be."""
    if not float(str(parameters["hu_low"])) < float(str(parameters["hu_high"])):
        low, high = parameters["hu_low"], parameters["hu_high"]
        raise StudyError(f"recipes.parameters.hu_low is {low}, expected below hu_high ({high})")
    levels = parameters["levels"]
    least, most = int(str(parameters["minimum_levels"])), len(levels) if isinstance(levels, tuple) else 1
    if not 1 <= least <= most:
        raise StudyError(f"recipes.parameters.minimum_levels is {least}, expected 1 to the number of levels ({most})")


def check_above_zero(parameters: Parameters, *names: str) -> None:
    """StudyError names a size that is not above zero."""
    for name in names:
        if not float(str(parameters[name])) > 0:
            raise StudyError(f"recipes.parameters.{name} is {parameters[name]}, expected above 0")


def check_one_of(parameters: Parameters, name: str, *, known: tuple[str, ...]) -> None:
    """StudyError names a word that is none of those known."""
    if parameters[name] not in known:
        raise StudyError(f"recipes.parameters.{name} is {parameters[name]!r}, expected one of {', '.join(known)}")


def refused_values(values: Mapping[str, float]) -> Answer | None:
    """A reject when a network answered with no finite number; null when all are finite."""
    wrong = [level for level, value in values.items() if not np.isfinite(value)]
    return ItemRefused("non_finite", f"no finite value for {', '.join(wrong)}") if wrong else None
