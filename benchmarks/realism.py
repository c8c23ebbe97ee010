"""Hold generated images against real ones: CT numbers of tissues, noise, edges, and the gray values of radiographs.

Usage: realism.py [--real FOLDER] [--people N] [--json FILE] [--pictures FOLDER]

FOLDER holds `ct/` and `cxr/` with DICOM series, NIfTI volumes and PNG files; every one with enough slices is measured, and
for each a generated scan is made with its pixel size, thickness and contrast. Nothing printed is clinical.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from scipy import ndimage

from ospor_batch.synthetic.ct import Sampling, scan
from ospor_batch.synthetic.population import CENTERS, Person, Rates, people
from ospor_batch.synthetic.radiograph import FIELD_MM, radiograph

Array = np.ndarray[Any, Any]
MEASURES_CT = ("fat_mode", "muscle_mode", "lung_mode", "air_mode", "bone_share_pct", "hu_p999", "body_core_hu", "core_sd",
               "noise_sd", "noise_freq", "edge_mm")  # fmt: skip
LUNG_SHARE = 0.05  # of the body's pixels, from which a real slice counts as one of the chest
SPACING_MM = 6.0  # of the generated slices
MEASURES_CXR = ("q05", "q25", "q50", "q75", "q95", "lung_level", "spine_over_lung", "detail_pct", "grain_pct")


@dataclass(frozen=True)
class Volume:
    """CT numbers ordered slice, row, column, with the pixel and slice size in mm."""

    name: str
    hu: Array
    pixel: float
    thickness: float
    is_contrast: bool


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
        rows.append({"image": real.name, "kind": "real", **ct_measures(real)})
        made = [_like(real, person) for person in drawn]
        measured = [ct_measures(volume) for volume in made]
        mean = {m: _mean([x[m] for x in measured]) for m in MEASURES_CT}
        rows.append({"image": f"  generated like it (mean of {len(made)})", "kind": "generated", **mean})
        if pictures:
            _side_by_side(real, made[0], pictures / f"ct_{number}.png")
    return rows


def _like(real: Volume, person: Person) -> Volume:
    """A generated scan with the real one's pixels, thickness and contrast, of its part of the trunk.

    Real sets with lungs are held against a chest; of the generated slices those count that show as much lung.
    """
    matrix, shares = min(512, round(400 / real.pixel)), _lung_shares(real.hu)
    has_lung = max(shares) > LUNG_SHARE
    made = scan(
        person, sampling=Sampling(matrix, matrix * real.pixel), spacing_mm=max(real.thickness, SPACING_MM),
        thickness_mm=real.thickness, is_contrast=real.is_contrast, protocol="chest" if has_lung else "abdomen",
    )  # fmt: skip
    hu = made.hu.astype(np.float32)
    if has_lung:
        off = np.abs(np.array(_lung_shares(hu)) - np.median(shares))
        hu = hu[np.sort(np.argsort(off, kind="stable")[: max(3, len(hu) // 3)])]
    return Volume("", hu, real.pixel, real.thickness, real.is_contrast)


def _lung_shares(hu: Array) -> list[float]:
    """Share of the body's pixels in each slice that hold lung."""
    bodies = [_body(plane) for plane in hu]
    return [float(((p > -950) & (p < -650))[b].sum() / max(b.sum(), 1)) for p, b in zip(hu, bodies, strict=True)]


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
        found.append(Volume(name, np.stack(planes).astype(np.float32), pixel, thick, bool(first.get("ContrastBolusAgent"))))
    return found


def _nifti(path: Path, folder: Path) -> list[Volume]:
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    if values.min() > -500 or min(values.shape) < 60:  # a mask, or a crop around one vertebra
        return []
    values = nib.as_closest_canonical(image).get_fdata().transpose(2, 1, 0)[:, ::-1]
    sizes = image.header.get_zooms()
    return [
        Volume(
            path.relative_to(folder).as_posix().split("/")[0],
            values.astype(np.float32),
            float(sizes[0]),
            float(sizes[2]),
            is_contrast=False,
        )
    ]


def ct_measures(volume: Volume) -> dict[str, float | None]:
    """What an image is compared by; null where it does not hold the tissue."""
    hu = volume.hu
    body = np.stack([_body(plane) for plane in hu])
    inner = np.stack([ndimage.binary_erosion(b, iterations=max(1, round(8 / volume.pixel))) for b in body])
    outside = ~np.stack([ndimage.binary_dilation(b, iterations=max(2, round(20 / volume.pixel))) for b in body]) & (hu > -1023)
    core = _vertebral_core(hu, inner, volume)
    return {
        "fat_mode": _mode(hu[body], -140, -60), "muscle_mode": _mode(hu[body], 20, 100),
        "lung_mode": _mode(hu[inner], -950, -650),
        "air_mode": _mode(hu[outside], -1023, -960), "bone_share_pct": 100 * float((hu[body] > 250).mean()),
        "hu_p999": float(np.quantile(hu[body], 0.999)), "body_core_hu": None if core is None else float(core.mean()),
        "core_sd": None if core is None else float(core.std()), **_noise(hu, inner, volume), "edge_mm": _edge(hu, body, volume),
    }  # fmt: skip


def _body(plane: Array) -> Array:
    labels, n = ndimage.label(ndimage.binary_opening(plane > -300, iterations=2))
    if not n:
        return np.zeros_like(plane, dtype=bool)
    sizes = ndimage.sum_labels(np.ones_like(plane), labels, range(1, n + 1))
    return np.asarray(ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes))))


def _mode(values: Array, low: float, high: float) -> float | None:
    """Peak of the smoothed histogram, null where fewer than one in a hundred values lie there."""
    inside = values[(values >= low) & (values <= high)]
    if inside.size < max(200, 0.01 * values.size):
        return None
    counts, edges = np.histogram(inside, bins=np.arange(low, high + 2, 2))
    return float(edges[int(np.argmax(ndimage.gaussian_filter1d(counts.astype(float), 3)))] + 1)


def _vertebral_core(hu: Array, inner: Array, volume: Volume) -> Array | None:
    """CT numbers of the middle of the largest bone in each slice: the vertebral body, eroded by 5 mm."""
    found = []
    for plane, inside in zip(hu, inner, strict=True):
        bone = ndimage.binary_closing((ndimage.gaussian_filter(plane, 1.2 / volume.pixel) > 130) & inside, iterations=2)
        labels, n = ndimage.label(ndimage.binary_fill_holes(bone))
        if not n:
            continue
        largest = labels == 1 + int(np.argmax(ndimage.sum_labels(bone, labels, range(1, n + 1))))
        core = ndimage.binary_erosion(largest, iterations=max(1, round(8 / volume.pixel)))
        found.append(plane[core])
    values = np.concatenate(found) if found else np.zeros(0)
    return values if values.size > 60 else None


def _noise(hu: Array, inner: Array, volume: Volume) -> dict[str, float | None]:
    """Spread and mean frequency (1/mm) of the flattest patches of soft tissue, the trend of each taken off."""
    side = max(8, round(24 / volume.pixel))
    spectra, spreads = [], []
    for plane, inside in zip(hu, inner, strict=True):
        for j in range(0, plane.shape[0] - side, side // 2):
            for i in range(0, plane.shape[1] - side, side // 2):
                patch = plane[j : j + side, i : i + side]
                if not inside[j : j + side, i : i + side].all() or not -10 < patch.mean() < 200 or patch.std() > 60:
                    continue
                flat = patch - _plane_of(patch)
                spreads.append(float(flat.std()))
                spectra.append(np.abs(np.fft.fft2(flat)) ** 2)
    if len(spreads) < 4:
        return {"noise_sd": None, "noise_freq": None}
    best = np.argsort(spreads)[: max(4, len(spreads) // 5)]
    power = np.mean([spectra[k] for k in best], axis=0)
    f = np.hypot(np.fft.fftfreq(side, volume.pixel)[:, None], np.fft.fftfreq(side, volume.pixel)[None])
    return {"noise_sd": float(np.mean([spreads[k] for k in best])), "noise_freq": float((f * power).sum() / power.sum())}


def _plane_of(patch: Array) -> Array:
    y, x = np.mgrid[: patch.shape[0], : patch.shape[1]]
    terms = np.stack([np.ones(patch.size), x.ravel(), y.ravel(), (x * x).ravel(), (y * y).ravel(), (x * y).ravel()], axis=1)
    return np.asarray((terms @ np.linalg.lstsq(terms, patch.ravel(), rcond=None)[0]).reshape(patch.shape))


def _edge(hu: Array, body: Array, volume: Volume) -> float | None:
    """Distance in mm from 10 to 90 % of the step from air to skin, along rows at the sides of the body; median."""
    widths = []
    for plane, inside in zip(hu, body, strict=True):
        rows = np.flatnonzero(inside.any(axis=1))
        for j in rows[len(rows) // 3 : 2 * len(rows) // 3]:
            left = int(np.argmax(inside[j]))
            reach = max(4, round(6 / volume.pixel))
            if left < 2 * reach:
                continue
            profile = plane[j, left - reach : left + reach]
            low, high = np.median(profile[: reach // 2]), np.median(profile[-reach // 2 :])
            if high - low < 600 or low > -900:
                continue
            fine = np.interp(np.linspace(0, len(profile) - 1, 40 * len(profile)), np.arange(len(profile)), profile)
            share = (fine - low) / (high - low)
            start, end = np.argmax(share > 0.1), np.argmax(share > 0.9)
            if end > start:
                widths.append((end - start) / 40 * volume.pixel)
    return float(np.median(widths)) if len(widths) > 5 else None


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


def cxr_measures(picture: Array) -> dict[str, float]:
    """Gray values as shares of the range from the 1st to the 99th percentile, and how much detail and grain they carry."""
    low, high = np.quantile(picture, (0.01, 0.99))
    share = np.clip((picture - low) / (high - low), 0, 1)
    n = len(share)
    chest = share[n // 8 : -n // 8, n // 8 : -n // 8]
    quantiles = np.quantile(chest, (0.05, 0.25, 0.5, 0.75, 0.95))
    pixel = FIELD_MM / n
    upper = share[round(0.30 * n) : round(0.55 * n)]
    lung = np.median([upper[:, round(a * n) : round(b * n)] for a, b in ((0.24, 0.36), (0.64, 0.76))])
    spine = np.median(upper[:, round(0.47 * n) : round(0.53 * n)])
    band = ndimage.gaussian_filter(share, 2 / pixel) - ndimage.gaussian_filter(share, 8 / pixel)
    grain = share - ndimage.gaussian_filter(share, 1.0)
    field = np.s_[round(0.25 * n) : round(0.6 * n), round(0.22 * n) : round(0.38 * n)]
    named = dict(zip(("q05", "q25", "q50", "q75", "q95"), map(float, quantiles), strict=True))
    return {
        **named, "lung_level": float(lung), "spine_over_lung": float(spine - lung),
        "detail_pct": 100 * float(band[field].std()),
        "grain_pct": 100 * float(grain[field].std()),
    }  # fmt: skip


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
