"""Generated volumes to train the segmentation on: whole trunks from the lower chest or the neck to the hips, without noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from ospor_batch.models.segmentation_classes import RIB, SACRUM, STRUCTURES, TISSUES
from ospor_batch.models.segmentation_training import Labelled
from ospor_batch.synthetic.anatomy import Grid, Laid, Look, fitted, lay
from ospor_batch.synthetic.ct import IODINE, LINES, Phase
from ospor_batch.synthetic.painter import TISSUE_CODES, Painter
from ospor_batch.synthetic.parts import Part
from ospor_batch.synthetic.pelvis import sacrum
from ospor_batch.synthetic.physics import iodine_hu
from ospor_batch.synthetic.population import CENTERS, Person, Rates, people
from ospor_batch.synthetic.skeleton import ribs

# What is covered, in turn: upper end, lower end, mm below it; patches are cut from it anywhere. Declared
COVERS = (("T7", "S1", 90.0), ("T9", "S1", 90.0), ("T1", "L3", 10.0))
PHASES: tuple[Phase, ...] = ("plain", "portal_venous", "plain", "arterial")
FIELD_MM = 400.0
# more fractures and scoliosis than people have, so that a network has seen enough of each; declared
TRAINING_RATES = Rates(0.3, 0.3, 0.0, 0.0, fracture=2.0, scoliosis=0.3, transitional=0.0)


def generated(n: int, *, seed: int, spacing_mm: float) -> Iterator[Labelled]:
    """Labelled volumes of generated people of every center, noiseless: the synthesis adds noise of its own."""
    for place, person in enumerate(islice(drawn_people(n, seed=seed), n)):
        yield _volume_of(person, place, spacing_mm=spacing_mm)


def drawn_people(n: int, *, seed: int) -> Iterator[Person]:
    """Ordinary people of every center in turn, without faults."""
    per_center = -(-n // len(CENTERS))
    drawn = [people(center.name, range(1, per_center + 1), seed=seed, night=1, rates=TRAINING_RATES) for center in CENTERS]
    for together in zip(*drawn, strict=True):
        yield from (replace(person, fault="none") for person in together)


def _volume_of(person: Person, place: int, *, spacing_mm: float) -> Labelled:
    body, (upper, lower, below) = fitted(person), COVERS[place % len(COVERS)]
    low, high = body.vertebra(lower).bottom - below, body.top(upper)
    n, side = round(FIELD_MM / spacing_mm), spacing_mm
    first = -(n - 1) / 2 * side
    shape = (int((high - low) / side), n, n)
    grid = Grid((first, first, low), (side, side, side), shape, side)
    gain = iodine_hu(person.kvp_kv)
    added = {tissue: amount * gain for tissue, amount in IODINE[PHASES[place % len(PHASES)]].items()}
    look = Look(person.kvp_kv, LINES[person.kvp_kv], added, body.muscle_fat)
    laid = lay(person, grid, look=look)
    structures = _structures(
        laid, shape, landmarks={RIB: _alone(ribs(body), grid, look), SACRUM: _alone(sacrum(body), grid, look)}
    )
    return Labelled(np.rint(np.clip(np.asarray(laid.hu), -1024, 3071)).astype(np.int16), structures)


def _alone(parts: list[Part], grid: Grid, look: Look) -> npt.NDArray[np.bool_]:
    """Where some bones lie."""
    put = Painter(grid, look)
    put.put(parts)
    found: npt.NDArray[np.bool_] = np.asarray(put.tissue) == TISSUE_CODES["bone"]
    return found


def _structures(
    laid: Laid, shape: tuple[int, int, int], *, landmarks: Mapping[str, npt.NDArray[np.bool_]]
) -> npt.NDArray[np.uint8]:
    found = np.zeros(shape, np.uint8)
    for name, is_there in landmarks.items():
        found[is_there & (laid.tissue == TISSUE_CODES["bone"])] = STRUCTURES.index(name)
    for name in TISSUES:
        found[laid.tissue == TISSUE_CODES[name]] = STRUCTURES.index(name)
    for level, (where, share) in laid.body.items():
        found[where][share > 0.5] = STRUCTURES.index(level)
    return found
