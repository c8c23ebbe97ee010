"""Draw the pictures of docs/generated_archives.md: run `python docs/generated/pictures.py` from the root of the checkout."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image

from ospor_batch.synthetic.archive import write_study
from ospor_batch.synthetic.ct import Sampling, Scan, scan
from ospor_batch.synthetic.lettering import written
from ospor_batch.synthetic.population import Person, Rates, people
from ospor_batch.synthetic.radiograph import radiograph

Array = np.ndarray[Any, Any]
TILE = 200
GRAYS = 40  # so that each file stays small


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
    )  # fmt: skip
    _write(out / "variants.png", [_planes(_scan(v, "spine"), at_screws=v.implant == "pedicle_screws") for v in variants],
           ("WEDGE FRACTURES", "SCOLIOSIS  SPURS", "SCREWS", "CEMENT"))  # fmt: skip
    films = [radiograph(_someone(c, sex=s), matrix=400) for c, s in
             (("north", "female"), ("south", "male"), ("east", "female"), ("west", "male"))]  # fmt: skip
    views = [radiograph(_someone("north", sex="male"), matrix=400, view=v) for v in ("PA", "AP", "LATERAL")]
    _write(out / "radiographs.png", [[_film(f) for f in films]], ("NORTH PA", "SOUTH PA", "EAST PA", "WEST PA"))
    _write(out / "views.png", [[_film(f) for f in views]], ("PA", "AP", "LATERAL"))
    _write(out / "bodies.png", [[_axial(_scan(p, "abdomen")) for p in _sizes()]], ("LIGHT", "USUAL", "HEAVY", "STRONG"))
    _companions(out)


def _someone(center: str, *, sex: str) -> Person:
    drawn = people(center, range(200, 260), seed=5, night=2, rates=Rates(0, 0, 0, 0))
    return replace(next(p for p in drawn if p.sex == sex and not p.fractures and abs(p.scoliosis_mm) < 3), kvp_kv=120)


def _sizes() -> list[Person]:
    person = _someone("south", sex="male")
    return [replace(person, weight_kg=48.0), person, replace(person, weight_kg=98.0), replace(person, smi_cm2_m2=66.0)]


def _scan(person: Person, protocol: str, **asked: Any) -> Scan:
    return scan(
        person, sampling=Sampling(TILE), spacing_mm=2.5, thickness_mm=2.5, is_contrast=False, protocol=protocol, **asked
    )  # type: ignore[arg-type]


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


def _companions(out: Path) -> None:
    """One picture of each kind of series that lies beside the axial ones in a small generated study."""
    found: dict[str, tuple[float, Array]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_study(Path(folder) / "study", preset="tiny", seed=3)
        for path in sorted((Path(folder) / "study" / "archives").rglob("*")):
            try:
                ds = pydicom.dcmread(path) if path.is_file() else pydicom.Dataset()
                kind = "-".join(str(v) for v in list(ds.get("ImageType", []))[2:3]) or str(ds.get("Modality", ""))
                if "PixelData" not in ds or ds.Modality != "CT" or kind.startswith("AXIAL") or not kind:
                    continue
                shown = ds.pixel_array.astype(np.float32)
            except (pydicom.errors.InvalidDicomError, ValueError, AttributeError, EOFError, OSError):
                continue  # a planted fault
            if shown.ndim == 2:
                slope, start = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
                values = shown * slope + start
                low, high = np.quantile(values, (0.02, 0.995))
                gray = np.asarray(np.clip((values - low) / max(high - low, 1), 0, 1) * 255, dtype=np.uint8)
                found[kind] = max(found.get(kind, (-1.0, gray)), (float(high - low), gray), key=lambda item: item[0])
    names = sorted(found)[:4]
    tiles = [np.asarray(Image.fromarray(found[name][1]).resize((TILE, TILE))) for name in names]
    if tiles:
        _write(out / "companions.png", [tiles], [name.replace("_", " ") for name in names])


def _write(path: Path, rows: Sequence[Sequence[Array]], titles: Sequence[str]) -> None:
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
    sheet = np.hstack([np.pad(strip, ((0, tall - len(strip)), (0, 4))) for strip in strips])
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.round(sheet.astype(np.float32) / 255 * (GRAYS - 1)) * (255 / (GRAYS - 1))
    Image.fromarray(steps.astype(np.uint8)).quantize(GRAYS).save(path, optimize=True)


if __name__ == "__main__":
    main()
