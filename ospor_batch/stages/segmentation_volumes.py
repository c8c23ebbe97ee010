"""Generated volumes to train the segmentation on: whole trunks from the lower chest or the neck to the hips, without noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ospor_batch.models.segmentation_classes import LEVELS, RIB, SACRUM, STRUCTURES, TISSUES
from ospor_batch.models.segmentation_training import Labelled
from ospor_batch.synthetic.anatomy import Grid, Laid, Look, fitted, lay
from ospor_batch.synthetic.ct import IODINE, LINES, Phase
from ospor_batch.synthetic.painter import TISSUE_CODES, Painter
from ospor_batch.synthetic.physics import iodine_hu
from ospor_batch.synthetic.population import CENTERS, Person, Rates, people
from ospor_batch.synthetic.skeleton import ribs

# What is covered, in turn: upper end, lower end, mm below it; patches are cut from it anywhere. Declared
COVERS = (("T7", "S1", 90.0), ("T9", "S1", 90.0), ("T1", "L3", 10.0))
PHASES: tuple[Phase, ...] = ("plain", "portal_venous", "plain", "arterial")
FIELD_MM = 400.0
# more fractures and scoliosis than people have, so that a network has seen enough of each; declared
TRAINING_RATES = Rates(0.3, 0.3, 0.0, 0.0, fracture=2.0, scoliosis=0.3, transitional=0.0)
# The sacrum below S1, which generated people lack: half width, half depth, half height and the way to the next, mm; textbook
BELOW_S1 = ((21.0, 11.0, 13.0, 24.0), (17.0, 9.0, 11.0, 21.0), (14.0, 7.0, 9.0, 18.0), (11.0, 5.0, 8.0, 16.0))
ALA = (20.0, 13.0, 22.0)  # half sizes of each wing beside S1 (across, deep, high), mm


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
    alone = Painter(grid, look)
    alone.put(ribs(body))
    structures = _structures(laid, shape, is_rib=np.asarray(alone.tissue) == TISSUE_CODES["bone"])
    hu = np.asarray(laid.hu, dtype=np.float32)
    if lower == "S1":
        hu, structures = _with_sacrum(hu, structures, spacing_mm=side, draw=person.draws("sacrum"))
    return Labelled(np.rint(np.clip(hu, -1024, 3071)).astype(np.int16), structures)


def _structures(laid: Laid, shape: tuple[int, int, int], *, is_rib: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    found = np.zeros(shape, np.uint8)
    found[is_rib & (laid.tissue == TISSUE_CODES["bone"])] = STRUCTURES.index(RIB)
    for name in TISSUES:
        found[laid.tissue == TISSUE_CODES[name]] = STRUCTURES.index(name)
    for level, (where, share) in laid.body.items():
        found[where][share > 0.5] = STRUCTURES.index(level)
    return found


def _with_sacrum(
    hu: npt.NDArray[np.float32], structures: npt.NDArray[np.uint8], *, spacing_mm: float, draw: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Lay S2 to S5 and the wings of S1: bone that no body may be mistaken for, and what ends the chain of bodies."""
    centers = [np.argwhere(structures == STRUCTURES.index(level)).mean(axis=0) for level in LEVELS[-2:]]
    step = (centers[1] - centers[0]) / np.linalg.norm(centers[1] - centers[0])
    angle, at = float(np.arctan2(step[1], -step[0])), centers[1] * spacing_mm
    size = float(draw.uniform(0.85, 1.15))
    parts = [(at + np.array([-2.0, 9.0, side * 36.0]) * size, (ALA[2], ALA[1], ALA[0]), angle) for side in (-1, 1)]
    away = 27.0
    for wide, deep, high, following in BELOW_S1:
        angle += float(draw.uniform(0.05, 0.35))  # it bends to the back
        at = at + away * size * np.array([-np.cos(angle), np.sin(angle), 0.0])
        parts.append((at, (high, deep, wide), angle))
        away = following
    is_bone = np.zeros(hu.shape, bool)
    for center, half, turn in parts:
        is_bone |= _ellipsoid(hu.shape, center / spacing_mm, np.array(half) * size / spacing_mm, turn=turn)
    is_bone &= structures != STRUCTURES.index("S1")
    rim = is_bone & ~ndimage.binary_erosion(is_bone)
    value = np.where(rim, draw.uniform(250, 500), draw.uniform(60, 260)).astype(np.float32)
    return np.where(is_bone, value, hu), np.where(is_bone, STRUCTURES.index(SACRUM), structures).astype(np.uint8)


def _ellipsoid(
    shape: tuple[int, ...], center: npt.NDArray[np.float64], half: npt.NDArray[np.float64], *, turn: float
) -> npt.NDArray[np.bool_]:
    """Voxels of an ellipsoid that is turned in the sagittal plane, radians from the vertical to the back."""
    z, y, x = (np.arange(n, dtype=np.float32) - c for n, c in zip(shape, center, strict=True))
    down, back = z[:, None, None], y[None, :, None]
    along, across = down * np.cos(turn) - back * np.sin(turn), down * np.sin(turn) + back * np.cos(turn)
    # a box rather than an egg: fourth power
    far = (along / half[0]) ** 4 + (across / half[1]) ** 4 + (x[None, None, :] / half[2]) ** 4
    found: npt.NDArray[np.bool_] = far < 1
    return found
