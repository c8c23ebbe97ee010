"""Draw the pictures of docs/generated_archives.md: run `python docs/generated/pictures.py` from the root of the checkout."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pydicom
from PIL import Image

from ospor_batch.synthetic import anatomy
from ospor_batch.synthetic.archive import write_study
from ospor_batch.synthetic.ct import Sampling, Scan, scan
from ospor_batch.synthetic.instances import stored_values
from ospor_batch.synthetic.lettering import written
from ospor_batch.synthetic.painter import TISSUE_CODES
from ospor_batch.synthetic.patient_files import Detail, patient_files, scan_of
from ospor_batch.synthetic.phantom import PHANTOMS, Phantom, is_cut, phantoms_of
from ospor_batch.synthetic.population import Person, Rates, people
from ospor_batch.synthetic.radiograph import CURVES, display_table, radiograph
from ospor_batch.synthetic.vendor import SCANNERS, habit_of

Array = np.ndarray[Any, Any]
TILE = 200
GRAYEST = 4095  # of a letter of lead
GRAYS = 40  # so that each file stays small
SHORT = {"SOMATOM Definition AS+": "Definition AS", "IQon - Spectral CT": "IQon"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out = parser.parse_args().out
    person = _someone("north", sex="female")
    _write(out / "protocols.png", [_planes(_scan(person, name)) for name in ("lumbar", "abdomen", "chest", "low_dose_chest")],
           ("LUMBAR", "ABDOMEN", "CHEST", "LOW-DOSE CHEST"))  # fmt: skip
    _write(out / "doses_and_kernels.png", [[_axial(made) for made in (
        _scan(person, "abdomen", kernel="soft"), _scan(person, "abdomen"), _scan(person, "abdomen", kernel="bone"),
        _scan(replace(person, kvp_kv=80), "abdomen"))]], ("SOFT", "STANDARD", "BONE", "80 KV"))  # fmt: skip
    phases = ("plain", "arterial", "portal_venous", "delayed")
    _write(out / "contrast.png", [[_axial(_scan(person, "abdomen", phase=phase)) for phase in phases]],
           ("PLAIN", "ARTERIAL", "PORTAL VENOUS", "DELAYED"))  # fmt: skip
    variants = (
        replace(person, fractures=(("T12", 0.40), ("L2", 0.30))), replace(person, scoliosis_mm=16.0, spurs=3.0),
        replace(person, implant="pedicle_screws"), replace(person, implant="cement"),
        replace(person, transitional="sacralised"),
    )  # fmt: skip
    _write(out / "variants.png", [_planes(_scan(v, "spine"), at_screws=v.implant == "pedicle_screws") for v in variants],
           ("WEDGE FRACTURES", "SCOLIOSIS - SPURS", "SCREWS", "CEMENT", "L5 GROWN TO S1"))  # fmt: skip
    _truth(out, person)
    films = [radiograph(_someone(c, sex=s), matrix=400) for c, s in
             (("north", "female"), ("south", "male"), ("east", "female"), ("west", "male"))]  # fmt: skip
    views = [radiograph(_someone("north", sex="male"), matrix=400, view=v) for v in ("PA", "AP", "LATERAL")]
    _write(out / "radiographs.png", [[_film(f) for f in films]], ("NORTH PA", "SOUTH PA", "EAST PA", "WEST PA"))
    _write(out / "views.png", [[_film(f) for f in views]], ("PA", "AP", "LATERAL"))
    _write(out / "bodies.png", [[_axial(_scan(p, "abdomen")) for p in _sizes()]], ("LIGHT", "USUAL", "HEAVY", "STRONG"))
    _vendors(out)
    with tempfile.TemporaryDirectory() as folder:
        _companions(out, write_study(Path(folder) / "study", preset="tiny", seed=3).parent / "archives")
    _faults(out)
    _phantoms(out)


def _phantoms(out: Path) -> None:
    """An exam without a phantom, one with, one in whose rods the field of view ends, and two phantoms under one patient."""
    drawn = people("west", range(1, 41), seed=5, night=2, rates=Rates(0, 0, 0, 0, phantom=1.0))
    whole, cut = (next(p for p in drawn if phantoms_of(p) and is_cut(p) is ends) for ends in (False, True))
    other = Phantom("caha", (0.0, 75.0, 150.0, 300.0), 18.0)
    detail, lying = Detail(Sampling(TILE), 96), (replace(whole, phantom_share=0.0), whole, cut)
    shown = [_axial(scan_of(person, detail, is_contrast=False)) for person in lying]
    with mock.patch.object(anatomy, "phantoms_of", return_value=(PHANTOMS["k2hpo4"], other)):
        shown.append(_axial(scan_of(whole, detail, is_contrast=False)))
    _write(out / "phantoms.png", [shown], ("NO PHANTOM", "ON A PHANTOM", "CUT BY THE FIELD", "TWO PHANTOMS"))


def _vendors(out: Path) -> None:
    """A slice of each scanner as its files store it: from a low to a high stored value, whatever the rescale."""
    tiles, names = [], []
    for vendor, scanners in SCANNERS.items():
        for habit in scanners:
            person = next(p for p in _many("north", vendor) if habit_of(p) is habit)
            made = _scan(person, "abdomen")
            stored = stored_values(made, habit)[len(made.hu) // 2].astype(np.float32)
            low, high = np.quantile(stored, 0.02), np.quantile(stored, 0.999)
            tiles.append(np.asarray(np.clip((stored - low) / (high - low), 0, 1) * 255, dtype=np.uint8))
            names.append(f"{vendor} {SHORT.get(habit.model, habit.model)}".upper())
    _save(out / "vendors.png", np.vstack([_sheet([tiles[i : i + 4]], names[i : i + 4]) for i in (0, 4)]))


def _truth(out: Path, person: Person) -> None:
    """A scan beside its true masks: whole vertebrae, their trabecular cores, and the tissues, each in a gray of its own."""
    made = _scan(person, "spine")
    grays = np.zeros(256, dtype=np.int16)
    grays[list(TISSUE_CODES.values())] = np.linspace(60, 440, len(TISSUE_CODES)).astype(np.int16)
    levels = np.where(made.bodies > 0, made.bodies.astype(np.int16) % 2 * 180 + 220, -180)  # neighbours differ
    masks = (levels, np.where(made.labels > 0, 440, -180), np.where(made.tissue > 0, grays[made.tissue], -180))
    shown = [made, *(replace(made, hu=mask.astype(np.int16)) for mask in masks)]
    _write(out / "truth.png", [_planes(one) for one in shown], ("CT", "VERTEBRAE", "TRABECULAR CORES", "TISSUES"))


def _many(center: str, vendor: str) -> list[Person]:
    drawn = people(center, range(1, 60), seed=5, night=2, rates=Rates(0, 0, 0, 0))
    return [replace(p, vendor=vendor, kvp_kv=120) for p in drawn]


def _faults(out: Path) -> None:
    """Faults that can be seen: of the stack, of the slice and of the radiograph, each as a plain viewer shows the files."""
    person = _someone("south", sex="male")
    stacks = {"SOUND": _stack(person), "TILTED GANTRY": _stack(replace(person, tilt_deg=16.0))}
    for name, fault in (("MISSING SLICE", "missing_slice"), ("MIXED ORIENTATION", "mixed_orientation"),
                        ("CUT OFF IN PIXELS", "truncated_pixels")):  # fmt: skip
        stacks[name] = _stack(replace(person, fault=fault, vendor="ge"))
    slices = {
        "SOUND": _axial(_scan(person, "abdomen")), "MOTION": _axial(_scan(replace(person, motion_mm=7.0), "abdomen")),
        "METAL": _planes(_scan(replace(person, implant="pedicle_screws"), "spine"), at_screws=True)[0],
        "CROPPED FIELD": _axial(_scan(person, "abdomen", sampling=Sampling(TILE, 220.0))),
        "UNDECLARED PADDING": _padded(person),
    }  # fmt: skip
    films = {
        "SOUND": _film(radiograph(person, matrix=400)), "MONOCHROME1 BELIEVED": 255 - _film(radiograph(person, matrix=400)),
        "LETTER BURNED IN": _lettered(person), "STORED BEFORE ITS VOI LUT": _before_lut(person),
    }  # fmt: skip
    sheets = [_sheet([list(some.values())], list(some)) for some in (stacks, slices, films)]
    broad = max(sheet.shape[1] for sheet in sheets)
    _save(out / "faults.png", np.vstack([np.pad(sheet, ((0, 6), (0, broad - sheet.shape[1]))) for sheet in sheets]))


def _stack(person: Person) -> Array:
    """The plane from front to back through the spine, the slices in the order of their positions one below the other."""
    detail, planes = Detail(Sampling(TILE), 96), {}
    scanned = scan_of(person, detail, is_contrast=False)
    middle = round(float(np.argwhere(scanned.bodies > 0)[:, 2].mean()))
    for file in patient_files(person, detail=detail, scanned=scanned):
        if file.kind != "axial":
            continue
        ds = pydicom.dcmread(BytesIO(file.content))
        try:
            line = ds.pixel_array[:, middle] * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        except ValueError:
            line = np.full(TILE, -1024.0)  # pixels that end too early: black
        if float(ds.ImageOrientationPatient[4]) == 0:
            line = np.full(TILE, 3000.0)  # a plane of another direction: white
        place = (float(ds.ImagePositionPatient[2]) - scanned.grid.origin[2]) / scanned.grid.step[2]
        planes[len(scanned.hu) - 1 - round(place)] = line
    plane = np.stack([planes.get(row, np.full(TILE, -1024.0)) for row in range(len(scanned.hu))])
    return np.asarray(Image.fromarray(_window(plane)).resize((TILE, round(len(plane) * 2.5)), Image.Resampling.NEAREST))


def _padded(person: Person) -> Array:
    """What a reader shows that takes padding for CT numbers."""
    made = _scan(replace(person, vendor="ge"), "abdomen")
    stored = stored_values(made, SCANNERS["ge"][0])[len(made.hu) // 2]
    return np.asarray(np.clip((stored + 3100.0) / 4400, 0, 1) * 255, dtype=np.uint8)


def _lettered(person: Person) -> Array:
    """The first film of several people that has a lead letter; six in ten have one."""
    films = (radiograph(replace(person, number=number), matrix=400) for number in range(1, 20))
    return _film(next(film for film in films if (film == GRAYEST).sum() > 60))


def _before_lut(person: Person) -> Array:
    return _film(np.searchsorted(display_table(CURVES["south"]), radiograph(person, matrix=400)).astype(np.uint16))


def _someone(center: str, *, sex: str) -> Person:
    drawn = people(center, range(200, 260), seed=5, night=2, rates=Rates(0, 0, 0, 0))
    return replace(next(p for p in drawn if p.sex == sex and not p.fractures and abs(p.scoliosis_mm) < 3), kvp_kv=120)


def _sizes() -> list[Person]:
    person = _someone("south", sex="male")
    return [replace(person, weight_kg=48.0), person, replace(person, weight_kg=98.0), replace(person, smi_cm2_m2=66.0)]


def _scan(person: Person, protocol: str, **asked: Any) -> Scan:
    asked = {"sampling": Sampling(TILE), "spacing_mm": 2.5, "thickness_mm": 2.5, "is_contrast": False, **asked}
    return scan(person, protocol=protocol, **asked)  # type: ignore[arg-type]


def _axial(made: Scan) -> Array:
    inside = np.argwhere((made.bodies == 22) | (made.bodies == 21))
    return _window(made.hu[round(inside[:, 0].mean())])


def _planes(made: Scan, *, at_screws: bool = False) -> list[Array]:
    """An axial, a sagittal and a coronal plane, as high as they are."""
    middle = np.argwhere(made.bodies == (23 if at_screws else 20 if 20 in made.bodies else 17))
    k, j, i = (round(v) for v in middle.mean(axis=0))
    if at_screws:
        k = int(np.argmax((made.hu > 3000).sum(axis=(1, 2))))
    high = max(2, round(len(made.hu) * made.grid.step[2] / made.grid.step[0]))
    flat = [made.hu[::-1, :, i], made.hu[::-1, j, :]]
    upright = [np.asarray(Image.fromarray(_window(p)).resize((TILE, high), Image.Resampling.BILINEAR)) for p in flat]
    return [_window(made.hu[k]), *upright]


def _window(hu: Array) -> Array:
    return np.asarray(np.clip((hu.astype(np.float32) + 180) / 620, 0, 1) * 255, dtype=np.uint8)


def _film(gray: Array) -> Array:
    return np.asarray(Image.fromarray((gray / 16).astype(np.uint8)).resize((TILE + 40, TILE + 40), Image.Resampling.BOX))


def _companions(out: Path, archives: Path) -> None:
    """One picture of each kind of series that lies beside the axial ones in a small generated study."""
    found: dict[str, tuple[float, Array]] = {}
    for path in sorted(archives.rglob("*")):
        try:
            ds = pydicom.dcmread(path) if path.is_file() else pydicom.Dataset()
            kind = "-".join(str(v) for v in list(ds.get("ImageType", []))[2:3]) or str(ds.get("Modality", ""))
            if "PixelData" not in ds or ds.Modality != "CT" or kind.startswith("AXIAL") or not kind:
                continue
            shown = ds.pixel_array.astype(np.float32)
        except (pydicom.errors.InvalidDicomError, ValueError, AttributeError, EOFError, OSError):
            continue  # a planted fault
        shown = shown[len(shown) // 2] if kind == "VOLUME" else shown  # a frame of the multi-frame object
        kind = "DOSE SHEET" if kind == "SCREEN SAVE" and shown.ndim == 2 else kind
        shown = shown.mean(axis=2) if shown.ndim > 2 else shown
        low, high = np.quantile(shown, (0.02, 0.995))
        gray = np.asarray(np.clip((shown - low) / max(high - low, 1), 0, 1) * 255, dtype=np.uint8)
        found[kind] = max(found.get(kind, (-1.0, gray)), (float(high - low), gray), key=lambda item: item[0])
    names = sorted(found)
    tiles = [np.asarray(Image.fromarray(found[name][1]).resize((TILE, TILE))) for name in names]
    if tiles:
        _write(out / "companions.png", [tiles], [name.replace("_", " ") for name in names])


def _write(path: Path, rows: Sequence[Sequence[Array]], titles: Sequence[str]) -> None:
    _save(path, _sheet(rows, titles))


def _sheet(rows: Sequence[Sequence[Array]], titles: Sequence[str]) -> Array:
    """Tiles side by side below their titles; rows of several planes become columns."""
    columns = [list(row) for row in rows] if len(rows) > 1 else [[tile] for tile in rows[0]]
    strips = []
    for title, tiles in zip(titles, columns, strict=True):
        wide = max(tile.shape[1] for tile in tiles)
        head = np.zeros((14, wide), dtype=np.uint8)
        text = written(title)[:, : wide - 4]
        head[3:10, 2 : 2 + text.shape[1]] = np.where(text, 230, 0)
        padded = [np.pad(tile, ((0, 4), (0, wide - tile.shape[1]))) for tile in tiles]
        strips.append(np.vstack([head, *padded]))
    tall = max(len(strip) for strip in strips)
    return np.hstack([np.pad(strip, ((0, tall - len(strip)), (0, 4))) for strip in strips])


def _save(path: Path, sheet: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.round(sheet.astype(np.float32) / 255 * (GRAYS - 1)) * (255 / (GRAYS - 1))
    Image.fromarray(steps.astype(np.uint8)).quantize(GRAYS).save(path, optimize=True)


if __name__ == "__main__":
    main()
