"""The ceiling of given people: what a perfect reader of these very images would reach, sampling error of a small test included.

The population's ceiling (`synthetic.ceiling`) is of thousands; a test of a hundred has one of its own, and what a model misses
is missed of that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ospor_batch.synthetic import latent
from ospor_batch.synthetic.ceiling import (
    IMAGE_ERROR,
    Array,
    Image,
    Standard,
    bounds,
    labels_of_dxa,
    labels_of_qct,
    posterior,
    read,
)
from ospor_batch.synthetic.labels import Exam
from ospor_batch.synthetic.latent import ANCESTRIES, SITES, Bodies
from ospor_batch.synthetic.population import Person, center_plan
from ospor_batch.synthetic.seeding import stream

DRAWS = 60  # of the image's error; their mean is stated, and their spread

Labelled = tuple[Person, Exam]


@dataclass(frozen=True)
class OwnCeiling:
    """One metric of one target over given people.

    exact: with the true density; value: with the image's declared error, mean over the draws, and sd over them. Null where
    the metric is not defined, as with one class.
    """

    metric: str
    target: str
    exact: float | None
    value: float | None
    sd: float | None
    n_people: int
    n_positive: int


def own_ceilings(
    labelled: Sequence[Labelled], *, image: Image, standard: Standard, seed: int, draws: int = DRAWS
) -> list[OwnCeiling]:
    """The ceilings of people with the exam that each is held against; no people have none."""
    if not labelled:
        return []
    truth = _labels(labelled, standard)
    exact = _bounds_of(labelled, truth, standard=standard, error=0.0, draw=None)
    draw = stream(seed, "own ceiling")
    noisy = [_bounds_of(labelled, truth, standard=standard, error=IMAGE_ERROR[image], draw=draw) for _ in range(draws)]
    found = []
    for at, row in enumerate(exact):
        values = [one[at]["value"] for one in noisy if one[at]["value"] is not None]
        found.append(
            OwnCeiling(
                row["metric"], row["target"], row["value"], float(np.mean(values)) if values else None,
                float(np.std(values)) if values else None, len(labelled), row["n_positive"],
            )
        )  # fmt: skip
    return found


def bodies_of(people: Sequence[Person]) -> Bodies:
    """People as the population model's arrays; what no reader is asked for (muscle, own TBS) is 0."""
    n = len(people)
    return Bodies(
        age=np.array([p.age_at_image for p in people]), is_female=np.array([p.sex == "female" for p in people]),
        menopause_age=np.array([p.menopause_age or latent.MENOPAUSE_MEAN for p in people]),
        ancestry=np.array([ANCESTRIES.index(p.ancestry) for p in people]),
        adult_height_m=np.array([p.height_m for p in people]),
        bmi=np.array([p.weight_kg / p.height_m**2 for p in people]), density_z=np.array([p.density_z for p in people]),
        smi_z=np.zeros(n), tbs_z=np.zeros(n), site_z=np.array([p.site_z for p in people]),
        spurs=np.array([p.spurs for p in people]),
    )  # fmt: skip


def _labels(labelled: Sequence[Labelled], standard: Standard) -> dict[str, Array]:
    if standard == "qct":
        return labels_of_qct(np.array([float(exam.vbmd_mg_cm3 or 0) for _, exam in labelled]))
    printed = np.array([[float(exam.t[site]) for site in SITES] for _, exam in labelled])
    return labels_of_dxa(printed, np.array([float(exam.tbs or 0) for _, exam in labelled]))


def _bounds_of(
    labelled: Sequence[Labelled], truth: dict[str, Array], *, standard: Standard, error: float, draw: np.random.Generator | None
) -> list[dict[str, Any]]:
    """Bounds of one draw of the image's error; the reader knows the center of each person."""
    parts: list[dict[str, Array]] = []
    order: list[int] = []
    for center in sorted({person.center for person, _ in labelled}):
        places = [at for at, (person, _) in enumerate(labelled) if person.center == center]
        people = [labelled[at][0] for at in places]
        bodies, vbmd = bodies_of(people), np.array([person.vbmd_mg_cm3 for person in people])
        noise = np.zeros(len(people)) if draw is None else draw.standard_normal(len(people))
        guess, spread = posterior(bodies, vbmd, center_plan(center), error=error, noise=noise)
        parts.append(read(bodies, vbmd, guess, spread, standard))
        order += places
    back = np.argsort(order)
    return bounds(truth | {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]})
