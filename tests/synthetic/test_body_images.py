"""A body and its images: density comes back, noise and blur are those declared, and CT and radiograph see one body."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from ospor_batch.synthetic.anatomy import FIRST_LABEL
from ospor_batch.synthetic.body import body_of
from ospor_batch.synthetic.ct import LINES, PROTOCOLS, Sampling, Scan, expected_hu, scan
from ospor_batch.synthetic.painter import TISSUE_CODES, Grid
from ospor_batch.synthetic.parts import ellipsoid
from ospor_batch.synthetic.physics import TISSUES
from ospor_batch.synthetic.population import Person, Rates, people
from ospor_batch.synthetic.projection import Rays, Shadow
from ospor_batch.synthetic.radiograph import FIELD_MM, detected, radiograph
from ospor_batch.synthetic.scanner import KERNELS, blurred, noise
from ospor_batch.synthetic.vertebrae import VERSE

PLAIN = Rates(0, 0, 0, 0)


@cache
def someone(number: int = 100) -> Person:
    return people("north", range(number, number + 1), seed=3, night=2, rates=replace(PLAIN, fracture=0.0))[0]


def imaged(person: Person, *, matrix: int = 80, is_noisy: bool = False, thickness: float = 5.0, **asked: object) -> Scan:
    return scan(
        person, sampling=Sampling(matrix), spacing_mm=5, thickness_mm=thickness, is_contrast=False, is_noisy=is_noisy, **asked,  # type: ignore[arg-type]
    )  # fmt: skip


def measured(made: Scan) -> float:
    return float(np.mean([made.hu[made.labels == FIRST_LABEL + i].mean() for i in range(4)]))


@pytest.mark.parametrize("kvp", sorted(LINES))
def test_without_noise_the_line_of_density_is_recovered(kvp: int) -> None:
    """Beam hardening differs between trunks, so each person stands off the line a little; the fit over people does not."""
    everyone = people("south", range(100, 124), seed=3, night=2, rates=PLAIN)
    x = np.array([p.vbmd_mg_cm3 for p in everyone])
    y = np.array([measured(imaged(replace(p, kvp_kv=kvp))) for p in everyone])
    design = np.stack([np.ones_like(x), x - x.mean()], axis=1)
    fit, *_ = np.linalg.lstsq(design, y, rcond=None)
    spread = float(np.std(y - design @ fit, ddof=2))
    assert spread < 3
    middle = expected_hu(float(x.mean()), kvp_kv=kvp)
    assert fit[0] == pytest.approx(middle, abs=4 * spread / np.sqrt(len(x)) + 0.5)
    assert fit[1] == pytest.approx(LINES[kvp][1], abs=4 * spread / np.sqrt(((x - x.mean()) ** 2).sum()))


def test_finer_pixels_show_the_same_density() -> None:
    coarse, fine = (measured(imaged(someone(), matrix=n)) for n in (64, 256))
    assert fine == pytest.approx(coarse, abs=2.5)


def test_the_same_person_gives_the_same_voxels() -> None:
    one, other = (imaged(someone(), is_noisy=True) for _ in range(2))
    assert (one.hu == other.hu).all()
    assert (one.tissue == other.tissue).all()


def test_noise_has_the_declared_spread_and_little_power_at_low_frequencies() -> None:
    grid = Grid((0.0, 0.0, 0.0), (0.8, 0.8, 5.0), (4, 256, 256), 5.0)
    made = {name: noise(np.random.default_rng(1), grid, kernel=kernel) for name, kernel in KERNELS.items()}
    f = np.hypot(np.fft.fftfreq(256, 0.8)[:, None], np.fft.fftfreq(256, 0.8)[None])
    middle = {}
    for name, values in made.items():
        assert values.std() == pytest.approx(1, abs=1e-3)
        power = np.mean(np.abs(np.fft.fft2(values)) ** 2, axis=0)
        assert power[f < 0.02].mean() < 0.35 * power[(f > 0.15) & (f < 0.30)].mean()
        middle[name] = float((f * power).sum() / power.sum())
    assert middle["soft"] < middle["standard"] < middle["bone"]


def test_noise_grows_in_thin_slices_and_large_people_and_at_low_dose() -> None:
    def spread(person: Person, **asked: object) -> float:
        loud, quiet = imaged(person, is_noisy=True, **asked), imaged(person, **asked)  # type: ignore[arg-type]
        inside = quiet.tissue == TISSUE_CODES["muscle"]
        return float((loud.hu.astype(float) - quiet.hu)[inside].std())

    usual = spread(someone())
    assert usual == pytest.approx(PROTOCOLS["lumbar"].noise_hu, rel=0.35)
    assert spread(someone(), thickness=2.5) == pytest.approx(usual * np.sqrt(2), rel=0.1)
    assert spread(replace(someone(), weight_kg=110.0)) > 1.15 * spread(replace(someone(), weight_kg=50.0))
    assert spread(someone(), protocol="low_dose_chest") > 1.2 * spread(someone(), protocol="chest")
    assert spread(someone(), ctdivol_mgy=PROTOCOLS["lumbar"].ctdivol_mgy / 4) == pytest.approx(2 * usual, rel=0.02)
    by_dose = sorted(PROTOCOLS.values(), key=lambda asked: asked.ctdivol_mgy)
    level = [asked.noise_hu for asked in by_dose]
    assert level == sorted(level, reverse=True)
    by_root = [asked.noise_hu * np.sqrt(asked.ctdivol_mgy) for asked in by_dose]
    assert max(by_root) < 1.55 * min(by_root), "noise falls with the root of the dose; lungs take some of it"


def test_a_kernel_widens_a_point_by_its_width() -> None:
    grid = Grid((0.0, 0.0, 0.0), (0.25, 0.25, 1.0), (1, 81, 81), 1.0)
    point = np.zeros(grid.shape, dtype=np.float32)
    point[0, 40, 40] = 1000
    for kernel in (KERNELS["soft"], KERNELS["standard"]):
        line = blurred(point, grid, kernel)[0, 40]
        wide = np.count_nonzero(line > line.max() / 2) * 0.25
        assert wide == pytest.approx(kernel.width_mm, abs=0.3)


def test_muscle_at_l3_is_the_area_of_the_person() -> None:
    for number in range(100, 106):
        person = someone(number)
        made = imaged(person, matrix=200)
        middle = int(np.argmin(np.abs(np.argwhere(made.bodies == VERSE["L3"])[:, 0].mean() - np.arange(len(made.hu)))))
        area = float((made.tissue[middle] == TISSUE_CODES["muscle"]).sum()) * made.grid.step[0] ** 2 / 100
        assert area == pytest.approx(person.muscle_cm2, rel=0.15)  # bones take some of it


def test_contrast_brightens_blood_most_and_bone_a_little() -> None:
    person = someone()
    plain = imaged(person)
    for phase, low, high in (("arterial", 180, 320), ("portal_venous", 90, 160)):
        made = scan(person, sampling=Sampling(80), spacing_mm=5, thickness_mm=5, is_contrast=True, is_noisy=False, phase=phase)  # type: ignore[arg-type]
        gain = made.hu.astype(float) - plain.hu
        assert low < np.quantile(gain[plain.tissue == TISSUE_CODES["blood"]], 0.9) < high  # arteries; veins are blood too
        assert measured(made) - measured(plain) == pytest.approx({"arterial": 14.4, "portal_venous": 25.7}[phase], abs=1)
        assert abs(np.median(gain[plain.tissue == TISSUE_CODES["fat"]])) <= 1


def test_each_protocol_covers_its_levels() -> None:
    for name, first, last in (("lumbar", "L1", "L4"), ("spine", "T12", "S1"), ("abdomen", "T10", "S1"), ("chest", "T2", "L2")):
        seen = set(np.unique(imaged(someone(), matrix=48, protocol=name).bodies)) - {0}
        assert {VERSE[first], VERSE[last]} <= seen


def test_chest_holds_lung_and_abdomen_does_not() -> None:
    chest, lumbar = imaged(someone(), matrix=64, protocol="chest"), imaged(someone(), matrix=64)
    assert (chest.tissue == TISSUE_CODES["lung"]).mean() > 0.05
    assert -880 < np.median(chest.hu[chest.tissue == TISSUE_CODES["lung"]]) < -780
    assert not (lumbar.tissue == TISSUE_CODES["lung"]).any()


def test_every_part_of_the_trunk_is_where_it_belongs() -> None:
    """Bones and organs of the chest, found from the middle of a vertebral body: mm to the left and to the back."""
    made = imaged(someone(), matrix=100, protocol="chest")
    pixel, soft = made.grid.step[0], TISSUE_CODES
    middle = {name: np.argwhere(made.bodies == VERSE[name]).mean(axis=0).round().astype(int) for name in VERSE if name != "S1"
              and (made.bodies == VERSE[name]).any()}  # fmt: skip

    def bone(level: str, left: tuple[int, int], back: tuple[int, int]) -> int:
        """Pixels of bone within a box."""
        k, j, i = middle[level]
        x, y = (np.arange(100)[None, :] - i) * pixel, (np.arange(100)[:, None] - j) * pixel
        box = (x >= left[0]) & (x <= left[1]) & (y >= back[0]) & (y <= back[1])
        return int(((made.tissue[k] == soft["bone"]) & box).sum())

    def near(level: str, left: float, back: float) -> tuple[int, float]:
        """Tissue, and CT number over three by three pixels."""
        k, j, i = middle[level]
        j, i = j + round(back / pixel), i + round(left / pixel)
        return int(made.tissue[k, j, i]), float(made.hu[k, j - 1 : j + 2, i - 1 : i + 2].mean())

    assert bone("T5", (-25, 25), (-150, -90)) > 5, "sternum"
    assert bone("T9", (-25, 25), (-150, -100)) == 0, "which ends above"
    for side in (-1, 1):
        flank, girdle = sorted((side * 60, side * 140)), sorted((side * 20, side * 90))
        assert bone("T2", (girdle[0], girdle[1]), (-90, -30)) > 5, "clavicles"
        assert bone("T4", (flank[0], flank[1]), (0, 60)) > bone("T8", (flank[0], flank[1]), (0, 60)) + 5, "scapulae"
        assert near("T7", side * 60, -40)[0] == soft["lung"]
        assert 25 < near("L1", side * 70, 5)[1] < 40, "kidneys"
        assert near("L1", side * 30, 45)[0] in {soft["muscle"], soft["fat"]}, "muscle of the back with its clefts"
        assert bone("T10", (15, 45) if side > 0 else (-45, -15), (5, 40)) > 2, "heads of ribs and transverse processes"
    assert ndimage.label(made.tissue[middle["T7"][0]] == soft["bone"])[1] > 8, "ribs"
    assert near("T9", 10, -70)[0] == near("T10", 12, -27)[0] == soft["blood"], "heart and aorta"
    assert near("L1", -80, -50)[0] == soft["liver"] != near("L1", 80, -50)[0]
    assert 5 < near("T10", 0, 24)[1] < 40, "canal"
    (high, j, i), (low, *_) = middle["L1"], middle["L2"]
    column = made.hu[low : high + 1, j, i].astype(int)
    assert 60 < column[1:-1].min() < 100 < column.max(), "a disc between two end-plates"
    behind = made.hu[middle["T10"][0], middle["T10"][1] :, middle["T10"][2]].astype(int)
    skin = int(np.argmax(behind < -900))
    assert -900 < behind[skin:].max() < -300, "the table, behind a gap of air"
    assert {soft["fat"], soft["muscle"], 0} <= set(np.unique(made.tissue[0]))


def test_a_wedge_fracture_lowers_the_front_alone() -> None:
    def heights(person: Person) -> tuple[float, float]:
        made = scan(person, sampling=Sampling(160), spacing_mm=1, thickness_mm=1, is_contrast=False, is_noisy=False)
        where = np.argwhere(made.bodies == VERSE["L2"])
        middle = where[:, 2] == round(where[:, 2].mean())
        front, back = np.quantile(where[middle, 1], (0.15, 0.85)).round()
        return tuple(float(np.ptp(where[middle & (where[:, 1] == row), 0]) + 1) for row in (front, back))  # type: ignore[return-value]

    whole, broken = heights(someone()), heights(replace(someone(), fractures=(("L2", 0.4),)))
    assert broken[0] < 0.78 * whole[0]
    assert broken[1] > 0.85 * whole[1]


def test_variants_change_the_spine() -> None:
    person = someone()
    bent, straight = (body_of(replace(person, scoliosis_mm=v)) for v in (14.0, 0.0))
    z = np.linspace(0, 140, 20)
    assert np.ptp(bent.spine_at(z)[0]) > 10 > np.ptp(straight.spine_at(z)[0])
    sacral, usual = (body_of(replace(person, transitional=v)) for v in ("sacralised", "none"))
    assert usual.vertebra("L5").bottom - usual.top("S1") > 2 * (sacral.vertebra("L5").bottom - sacral.top("S1"))
    assert body_of(replace(person, spurs=3.0)).vertebra("L3").spur > body_of(replace(person, spurs=0.2)).vertebra("L3").spur


def test_osteophytes_are_dense_beaks_at_the_front_of_the_end_plates() -> None:
    """What areal density counts is seen in a scan: bone before the rim, none at half the height, and the same core."""

    def of(grade: float) -> tuple[float, float, float]:
        person = replace(someone(), spurs=grade)
        made = scan(person, sampling=Sampling(160), spacing_mm=1, thickness_mm=1, is_contrast=False, is_noisy=False)
        where = np.argwhere(made.bodies == VERSE["L3"])
        where = where[where[:, 2] == round(where[:, 2].mean())]
        top, bottom = where[:, 0].max(), where[:, 0].min()
        rows = [where[where[:, 0] == z][:, 1].min() for z in (top - 5, (top + bottom) // 2)]
        core = made.hu[made.labels == FIRST_LABEL + 2].mean()
        return float(rows[0]), float(rows[1]), float(core)

    smooth, beaked = of(0.0), of(3.0)
    assert smooth[0] - beaked[0] >= 1  # rows of 2.5 mm, further to the front
    assert smooth[1] == beaked[1]
    assert beaked[2] == pytest.approx(smooth[2], abs=2)


def test_metal_and_motion_leave_their_marks() -> None:
    person = someone()
    plain = imaged(person, protocol="spine")
    screws = imaged(replace(person, implant="pedicle_screws"), protocol="spine")
    assert screws.hu.max() == 3071 > plain.hu.max()
    assert np.abs(screws.hu.astype(int) - plain.hu).max(axis=(1, 2)).max() > 500
    noisy, moved = (imaged(replace(person, motion_mm=v), is_noisy=True) for v in (0.0, 4.0))
    edge = [np.abs(np.diff(made.hu.astype(float), axis=1)).max(axis=(1, 2)).mean() for made in (noisy, moved)]
    assert edge[1] < edge[0]


def test_a_tilted_gantry_shows_the_same_body_in_slanted_slices() -> None:
    """Every voxel of a tilted scan, carried by its affine, lies in the tissue that the level scan has there."""
    level = imaged(someone(), matrix=100, thickness=2.0)
    for tilt in (14.0, -9.0):
        slanted = imaged(someone(), matrix=100, thickness=2.0, tilt_deg=tilt)
        assert slanted.grid.voxel_ml == pytest.approx(np.cos(np.deg2rad(tilt)) * level.grid.voxel_ml)
        cores = np.argwhere(slanted.labels >= FIRST_LABEL)
        world = slanted.grid.affine @ np.c_[cores[:, ::-1], np.ones(len(cores))].T
        i, j, k = np.rint(np.linalg.solve(level.grid.affine, world)[:3]).astype(int)
        inside = k.clip(0, len(level.hu) - 1) == k
        there = level.bodies[k[inside], j[inside], i[inside]]
        assert inside.mean() > 0.95
        assert (there == slanted.labels[tuple(cores[inside].T)]).mean() > 0.97
        assert set(np.unique(slanted.labels)) == {0, *range(FIRST_LABEL, FIRST_LABEL + 4)}
        assert measured(slanted) == pytest.approx(measured(level), abs=2.5)


def test_no_core_holds_metal() -> None:
    screws = imaged(replace(someone(), implant="pedicle_screws"), matrix=160)
    cores = screws.hu[screws.labels == FIRST_LABEL + 3]
    assert cores.size > 50
    assert cores.max() < 1500


def test_muscle_holds_more_fat_in_old_and_heavy_people() -> None:
    young = replace(someone(), birth_date=someone().image_date - timedelta(days=42 * 365), weight_kg=55.0)
    old = replace(someone(), birth_date=someone().image_date - timedelta(days=84 * 365), weight_kg=55.0)
    seen = []
    for person in (young, old, replace(young, weight_kg=85.0)):
        made = imaged(person, matrix=128)
        core = ndimage.binary_erosion(made.tissue == TISSUE_CODES["muscle"], iterations=1)
        seen.append(float(np.median(made.hu[core])))
    assert 55 > seen[0] > max(seen[1], seen[2]) > 0


def mass_through(made: Scan) -> NDArray[np.float64]:
    """g/cm2 from front to back, from CT numbers; rows from the head down."""
    dense = np.clip(made.hu.astype(float) + 1000, 0, None) / 1000
    table = made.tissue == 0
    dense[table & (made.hu < -100)] = 0
    return np.asarray(dense.sum(axis=1)[::-1] * made.grid.step[1] / 10)


def test_radiograph_and_ct_see_one_body() -> None:
    """The logarithm of the primary signal follows the mass that CT finds along the same rays."""
    person, matrix = replace(someone(102), sex="male"), 100
    pixel = FIELD_MM / matrix
    made = scan(
        person, sampling=Sampling(matrix, FIELD_MM), spacing_mm=pixel, thickness_mm=pixel, is_contrast=False, is_noisy=False,
        protocol="chest",
    )  # fmt: skip
    signal = -np.log(detected(person, matrix=matrix, view="AP", draw=person.draws("radiograph")))
    ct, film = mass_through(made), signal[30:70, 25:75]  # the middle of the chest, in which both lie
    fits = [
        float(np.corrcoef(film.ravel(), ct[30 + down : 70 + down, 25 + aside : 75 + aside].ravel())[0, 1])
        for down in range(-9, 10) for aside in range(-4, 5) if len(ct) >= 70 + down
    ]  # fmt: skip
    assert max(fits) > 0.85  # the two do not lie in the same place


@pytest.mark.parametrize(("source", "is_behind"), [(math.inf, False), (1000.0, False), (1000.0, True)])
def test_what_lies_far_from_the_detector_is_seen_larger(source: float, is_behind: bool) -> None:
    """A ball's shadow has the place and the width that its distances from tube and detector give it, and the ball's depth."""
    axis = np.arange(-200, 200, 0.5, dtype=np.float32)
    rays = Rays(axis, -axis, 0.0, source, 200.0 if is_behind else -200.0, is_behind=is_behind)
    for back in (-60.0, 80.0):
        shadow = Shadow(rays, bone_share=1.0)
        shadow.put([ellipsoid("cortical_bone", "air", center=(40.0, back, -50.0), half=(20.0, 20.0, 20.0))])
        areal = shadow.slanted()["cortical_bone"]
        rows, columns = np.nonzero(areal > 0.05 * areal.max())
        enlarged = 1 / (1 - abs(back - rays.detector_mm) / source)
        assert axis[columns].mean() == pytest.approx(40 * enlarged, abs=0.6)
        assert -axis[rows].mean() == pytest.approx(-50 * enlarged, abs=0.6)
        assert np.ptp(axis[columns]) == pytest.approx(40 * enlarged, abs=1.1)
        assert np.ptp(axis[rows]) == pytest.approx(40 * enlarged, abs=1.1)  # the thin ends of the ball are below one row
        assert areal.max() == pytest.approx(4 * TISSUES["cortical_bone"].density, rel=0.02)


@pytest.mark.parametrize("view", ["PA", "AP", "LATERAL"])
def test_denser_bone_shows_in_every_view(view: str) -> None:
    thin, dense = (
        detected(replace(someone(), vbmd_mg_cm3=v), matrix=96, view=view, draw=np.random.default_rng(2))  # type: ignore[arg-type]
        for v in (40.0, 200.0)
    )
    assert np.mean(dense <= thin + 1e-4) > 0.97  # end-plates of thin bone are hollower, so that a few rays meet less of it
    assert (np.log(thin) - np.log(dense)).max() > 0.05


def test_radiographs_differ_by_center_and_view() -> None:
    person = someone()
    looks = [radiograph(replace(person, center=c), matrix=96).astype(float) for c in ("north", "west")]
    assert np.abs(looks[0] - looks[1]).mean() > 20
    assert radiograph(person, matrix=96).max() <= 4095
    assert (radiograph(person, matrix=96) == radiograph(person, matrix=96)).all()
    assert FIELD_MM / 96 > 1
