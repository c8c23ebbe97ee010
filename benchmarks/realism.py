"""Hold generated images against real ones: CT numbers of tissues, noise, edges, and the gray values of radiographs.

Usage: realism.py [--real FOLDER] [--people N] [--json FILE] [--pictures FOLDER]

FOLDER holds `ct/` and `cxr/` with DICOM series, NIfTI volumes and PNG files; every one with enough slices is measured, and for
each generated scans are made of people whose trunk is as large, with its pixel size, thickness, contrast and, where the header
tells it, dose. Nothing printed is clinical.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, by its path

from benchmarks.realism_measures import (
    Array,
    Volume,
    aorta_hu,
    body_mask,
    ct_measures,
    cxr_measures,
    lung_shares,
    overlap,
    trunk_mm,
)  # fmt: skip
from ospor_batch.synthetic.body import body_of
from ospor_batch.synthetic.ct import Sampling, scan
from ospor_batch.synthetic.latent import BMI_RANGE
from ospor_batch.synthetic.population import CENTERS, Person, Rates, people
from ospor_batch.synthetic.radiograph import radiograph
from ospor_batch.synthetic.scanner import diameter_mm

MEASURES_CT = ("trunk_mm", "fat_mode", "muscle_hu", "lung_mode", "air_mode", "cortex_hu", "bone_share_pct", "hu_p999",
               "core_hu", "core_sd", "noise_sd", "noise_freq", "edge_mm", "overlap")  # fmt: skip
BRIGHT_HU = 100.0  # of the aorta, from which a scan was made with contrast (methods I4)
LUNG_SHARE = 0.05  # of the body's pixels, from which a real slice counts as one of the chest
SPACING_MM = 6.0  # of the generated slices
MEASURES_CXR = ("q05", "q25", "q50", "q75", "q95", "lung_level", "spine_over_lung", "detail_pct", "grain_pct")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("OSPOR_SHARED", "../shared")
    parser.add_argument("--real", type=Path, default=Path(shared) / "data" / "real")
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args()
    drawn = people("north", range(1, 40), seed=11, night=2, rates=Rates(0, 0, 0, 0))[: asked.people]
    found = {"ct": _ct(asked.real / "ct", drawn, asked.pictures), "cxr": _cxr(asked.real / "cxr", drawn, asked.pictures)}
    for kind, measures in (("ct", MEASURES_CT), ("cxr", MEASURES_CXR)):
        _print(kind, found[kind], measures)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


def _print(kind: str, rows: list[dict[str, Any]], measures: tuple[str, ...]) -> None:
    print(f"\n{kind}: real and generated, one line an image")
    print("  ".join([f"{'image':34}", f"{'kind':9}", *(f"{m:>15}" for m in measures)]))
    for row in rows:
        cells = [f"{'-' if row.get(m) is None else format(row[m], '.3g'):>15}" for m in measures]
        print("  ".join([f"{row['image'][:34]:34}", f"{row['kind']:9}", *cells]))


def _ct(folder: Path, drawn: list[Person], pictures: Path | None) -> list[dict[str, Any]]:
    rows = []
    for number, real in enumerate(_volumes(folder)):
        rows.append({"image": real.name, "kind": "real", "contrast": real.is_contrast, **ct_measures(real), "overlap": None})
        made = [_like(real, person) for person in drawn]
        measured = [{**ct_measures(volume), "overlap": overlap(real, volume)} for volume in made]
        mean = {m: _mean([x[m] for x in measured]) for m in MEASURES_CT}
        rows.append({"image": f"  generated like it (mean of {len(made)})", "kind": "generated", **mean})
        if pictures:
            _side_by_side(real, made[0], pictures / f"ct_{number}.png")
    return rows


def _like(real: Volume, person: Person) -> Volume:
    """A generated scan with the real one's pixels, thickness and contrast, of its part of a trunk that is as large.

    Noise follows the size of the trunk, so that scans of people of two sizes say nothing of each other's noise. Real sets with
    lungs are held against a chest; of the generated slices those count that show as much lung.
    """
    if real.is_whole:
        person = _as_large(person, trunk_mm(real))
    matrix, shares = min(512, round(400 / real.pixel)), lung_shares(real.hu)
    has_lung = max(shares) > LUNG_SHARE
    made = scan(
        person, sampling=Sampling(matrix, matrix * real.pixel), spacing_mm=max(real.thickness, SPACING_MM),
        thickness_mm=real.thickness, is_contrast=real.is_contrast, protocol="chest" if has_lung else "abdomen",
        ctdivol_mgy=real.ctdivol_mgy and real.ctdivol_mgy * 65 / person.weight_kg,  # dose follows weight (dose_report)
    )  # fmt: skip
    hu = made.hu.astype(np.float32)
    if has_lung:
        off = np.abs(np.array(lung_shares(hu)) - np.median(shares))
        hu = hu[np.sort(np.argsort(off, kind="stable")[: max(3, len(hu) // 3)])]
    return Volume("", hu, real.pixel, real.thickness, real.is_contrast)


def _as_large(person: Person, trunk_mm: float) -> Person:
    """The same person with the weight that makes the belly so large, within what the generator draws."""
    low, high = (bmi * person.height_m**2 for bmi in BMI_RANGE)
    while high - low > 0.5:
        middle = (low + high) / 2
        is_small = diameter_mm(body_of(replace(person, weight_kg=middle))) < trunk_mm
        low, high = (middle, high) if is_small else (low, middle)
    return replace(person, weight_kg=round((low + high) / 2, 1))


def _volumes(folder: Path) -> list[Volume]:
    """Every real CT that can be measured: DICOM series of three slices or more, single axial slices, NIfTI volumes in HU."""
    series: dict[str, list[Any]] = defaultdict(list)
    found = []
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(".nii.gz"):
            found += _nifti(path, folder)
        elif path.is_file() and path.suffix not in {".json", ".nrrd"}:
            ds = pydicom.dcmread(path, force=True)
            if ds.get("Modality") == "CT" and "PixelSpacing" in ds and "LOCALIZER" not in ds.get("ImageType", []):
                series[str(ds.get("SeriesInstanceUID", path))].append((path, ds))
    for members in series.values():
        members.sort(key=lambda m: float(m[1].get("ImagePositionPatient", [0, 0, 0])[2]))
        first = members[0][1]
        axial = np.allclose(
            np.abs(np.array(first.get("ImageOrientationPatient", [0] * 6), float)), [1, 0, 0, 0, 1, 0], atol=0.1
        )
        if not axial:
            continue
        planes = [d.pixel_array * float(d.get("RescaleSlope", 1)) + float(d.get("RescaleIntercept", 0)) for _, d in members]
        name = members[0][0].relative_to(folder).as_posix().split("/")[0 if len(members) > 1 else -1]
        pixel, thick = float(first.PixelSpacing[0]), float(first.get("SliceThickness") or 3)
        found.append(
            _volume(name, np.stack(planes).astype(np.float32), pixel, thick, told=bool(first.get("ContrastBolusAgent")))
        )
        if first.get("CTDIvol"):
            found[-1] = replace(found[-1], ctdivol_mgy=float(first.CTDIvol))
    return found


def _volume(name: str, hu: Array, pixel: float, thickness: float, *, told: bool) -> Volume:
    """A real volume, with contrast where the header says so or the aorta is bright: not every archive keeps the tag."""
    cut = np.mean([b[:, [0, -1]].any() or b[[0, -1]].any() for b in map(body_mask, hu)])
    made = Volume(name, hu, pixel, thickness, told, bool(cut < 0.5))
    aorta = aorta_hu(made) if made.is_whole else None
    return replace(made, is_contrast=told or (aorta is not None and aorta > BRIGHT_HU))


def _nifti(path: Path, folder: Path) -> list[Volume]:
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    if values.min() > -500 or min(values.shape) < 60:  # a mask, or a crop around one vertebra
        return []
    values = nib.as_closest_canonical(image).get_fdata().transpose(2, 1, 0)[:, ::-1]
    sizes = image.header.get_zooms()
    name = path.relative_to(folder).as_posix().split("/")[0]
    return [_volume(name, values.astype(np.float32), float(sizes[0]), float(sizes[2]), told=False)]


def _cxr(folder: Path, drawn: list[Person], pictures: Path | None) -> list[dict[str, Any]]:
    rows, shown = [], []
    for path in sorted(folder.iterdir()):
        picture = _picture(path)
        if picture is not None:
            rows.append({"image": path.name, "kind": "real", **cxr_measures(picture)})
            shown.append(picture)
    faces = [replace(person, center=center.name) for person in drawn for center in CENTERS]  # each center's display
    made = [_shrunk(radiograph(person, matrix=512).astype(float)) for person in faces]
    for k, picture in enumerate(made):
        rows.append({"image": f"generated {k + 1}", "kind": "generated", **cxr_measures(picture)})
    for kind in ("real", "generated"):
        mine = [row for row in rows if row["kind"] == kind]
        rows.append({"image": f"mean of {kind}", "kind": kind, **{m: _mean([r[m] for r in mine]) for m in MEASURES_CXR}})
    if pictures and shown:
        pictures.mkdir(parents=True, exist_ok=True)
        both = [np.hstack([_gray(p) for p in some[:4]]) for some in (shown, made)]
        wide = min(b.shape[1] for b in both)
        Image.fromarray(np.vstack([b[:, :wide] for b in both])).save(pictures / "cxr.png")
    return rows


def _picture(path: Path) -> Array | None:
    """A real radiograph, bright in bone, 256 pixels a side; null where it cannot be decoded."""
    if path.suffix == ".png":
        values = np.asarray(Image.open(path).convert("L"), dtype=float)
        return _shrunk(values)
    ds = pydicom.dcmread(path, force=True)
    try:
        values = ds.pixel_array.astype(float)
    except (AttributeError, ValueError, RuntimeError):
        return None
    corner = np.median(np.concatenate([values[:8].ravel(), values[:, :8].ravel(), values[:, -8:].ravel()]))
    middle = np.median(values[-len(values) // 4 :, values.shape[1] // 3 : -values.shape[1] // 3])
    return _shrunk(values if middle > corner else values.max() - values)  # the header may say it wrong; the belly is bright


def _shrunk(values: Array) -> Array:
    side = min(values.shape)
    top, left = (values.shape[0] - side) // 2, (values.shape[1] - side) // 2
    square = values[top : top + side, left : left + side].astype(np.float32)
    return np.asarray(Image.fromarray(square).resize((256, 256), Image.Resampling.BOX), dtype=float)


def _mean(values: list[float | None]) -> float | None:
    kept = [v for v in values if v is not None]
    return float(np.mean(kept)) if kept else None


def _gray(share: Array) -> Array:
    low, high = np.quantile(share, (0.01, 0.99))
    return np.asarray(np.clip((share - low) / (high - low), 0, 1) * 255, dtype=np.uint8)


def _side_by_side(real: Volume, made: Volume, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = [v.hu[len(v.hu) // 2] for v in (real, made)]
    shown = [
        np.asarray(Image.fromarray((np.clip((p + 160) / 560, 0, 1) * 255).astype(np.uint8)).resize((384, 384))) for p in planes
    ]
    Image.fromarray(np.hstack(shown)).save(path)


if __name__ == "__main__":
    main()
