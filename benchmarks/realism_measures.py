"""What images are compared by in benchmarks/realism.py: CT numbers of tissues, noise, edges, and the grays of radiographs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ospor_batch.synthetic.radiograph import FIELD_MM

Array = np.ndarray[Any, Any]
Range = tuple[float, float]
BESIDE_MM, BEHIND_MM = (18.0, 55.0), (28.0, 65.0)  # from the middle of a vertebral body, where the muscle of the back lies
MUSCLE_HU = (-29, 150)  # methods I1
HISTOGRAM = np.arange(-1000, 1210, 10)  # HU; what lies beyond counts with its ends


@dataclass(frozen=True)
class Volume:
    """CT numbers ordered slice, row, column, with the pixel and slice size in mm."""

    name: str
    hu: Array
    pixel: float
    thickness: float
    is_contrast: bool
    is_whole: bool = True  # whether the field of view holds the trunk
    ctdivol_mgy: float | None = None  # where the header says it


def ct_measures(volume: Volume) -> dict[str, float | None]:
    """What an image is compared by; null where it does not hold the tissue."""
    hu = volume.hu
    body = np.stack([body_mask(plane) for plane in hu])
    inner = np.stack([ndimage.binary_erosion(b, iterations=max(1, round(8 / volume.pixel))) for b in body])
    outside = ~np.stack([ndimage.binary_dilation(b, iterations=max(2, round(20 / volume.pixel))) for b in body]) & (hu > -1023)
    core, shell = _vertebra(hu, inner, volume)
    return {
        "trunk_mm": trunk_mm(volume) if volume.is_whole else None,
        "fat_mode": _mode(hu[body], -140, -60), "muscle_hu": _muscle(hu, inner, volume),
        "lung_mode": _mode(hu[inner], -950, -650),
        "air_mode": _mode(hu[outside], -1023, -960), "cortex_hu": None if shell is None else float(np.median(shell)),
        "bone_share_pct": 100 * float((hu[body] > 250).mean()),
        "hu_p999": float(np.quantile(hu[body], 0.999)), "core_hu": None if core is None else float(core.mean()),
        "core_sd": None if core is None else float(core.std()), **_noise(hu, inner, volume), "edge_mm": _edge(hu, body, volume),
    }  # fmt: skip


def trunk_mm(volume: Volume) -> float:
    """Diameter of the circle with the area of the trunk, the median over slices."""
    areas = [float(body_mask(plane).sum()) * volume.pixel**2 for plane in volume.hu]
    return 2 * float(np.sqrt(np.median(areas) / np.pi))


def overlap(real: Volume, made: Volume) -> float:
    """Share of the CT numbers of the trunk that two histograms have in common."""
    shares = []
    for volume in (real, made):
        inside = np.clip(volume.hu[np.stack([body_mask(plane) for plane in volume.hu])], HISTOGRAM[0], HISTOGRAM[-1])
        counts, _ = np.histogram(inside, bins=HISTOGRAM)
        shares.append(ndimage.gaussian_filter1d(counts / max(counts.sum(), 1), 1))  # coarse steps of one share nothing
    return float(np.minimum(*shares).sum())


def lung_shares(hu: Array) -> list[float]:
    """Share of the body's pixels in each slice that hold lung."""
    bodies = [body_mask(plane) for plane in hu]
    return [float(((p > -950) & (p < -650))[b].sum() / max(b.sum(), 1)) for p, b in zip(hu, bodies, strict=True)]


def aorta_hu(volume: Volume) -> float | None:
    """CT number that a tenth of the pixels before the vertebral bodies exceed: there lie the aorta and the vena cava."""
    found = []
    for plane in volume.hu[:: max(1, len(volume.hu) // 8)]:
        inside = ndimage.binary_erosion(body_mask(plane), iterations=max(1, round(8 / volume.pixel)))
        where = _behind(plane, inside, volume, aside=(0.0, 30.0), back=(-50.0, -24.0))
        if where is not None and where.any():
            found.append(float(np.quantile(ndimage.gaussian_filter(plane, 2 / volume.pixel)[where], 0.9)))
    return float(np.median(found)) if found else None


def body_mask(plane: Array) -> Array:
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


def _largest_bone(plane: Array, inside: Array, volume: Volume) -> Array | None:
    """The largest bone of a slice, filled: the vertebra."""
    bone = ndimage.binary_closing((ndimage.gaussian_filter(plane, 1.2 / volume.pixel) > 130) & inside, iterations=2)
    labels, n = ndimage.label(ndimage.binary_fill_holes(bone))
    if not n:
        return None
    return np.asarray(labels == 1 + int(np.argmax(ndimage.sum_labels(bone, labels, range(1, n + 1)))))


def _vertebra(hu: Array, inner: Array, volume: Volume) -> tuple[Array | None, Array | None]:
    """CT numbers of vertebral bodies: of their middle, 8 mm within, and the highest along each row of their rim."""
    cores, rims = [], []
    for plane, inside in zip(hu, inner, strict=True):
        largest = _largest_bone(plane, inside, volume)
        if largest is None:
            continue
        block = ndimage.binary_opening(largest, iterations=max(1, round(6 / volume.pixel)))  # without arch and ribs
        cores.append(plane[ndimage.binary_erosion(largest, iterations=max(1, round(8 / volume.pixel)))])
        near = max(1, round(3 / volume.pixel))
        rims += [
            float(plane[j, max(0, i - near) : i + near + 1].max())
            for j in np.flatnonzero(block.sum(axis=1) * volume.pixel > 15)
            for i in (int(np.argmax(block[j])), len(block[j]) - 1 - int(np.argmax(block[j][::-1])))
        ]
    core, rim = np.concatenate(cores) if cores else np.zeros(0), np.array(rims)
    return (core if core.size > 60 else None), (rim if rim.size > 20 else None)


def _behind(plane: Array, inside: Array, volume: Volume, *, aside: Range, back: Range) -> Array | None:
    """Pixels so far beside and behind the middle of the vertebral body, mm; in front of it where back is below zero."""
    largest = _largest_bone(plane, inside, volume)
    if largest is None:
        return None
    block = ndimage.binary_opening(largest, iterations=max(1, round(6 / volume.pixel)))
    if not block.any():
        return None
    middle, trunk = ndimage.center_of_mass(block), ndimage.center_of_mass(inside)
    y, x = np.mgrid[: plane.shape[0], : plane.shape[1]]
    across = np.abs(x - middle[1]) * volume.pixel
    behind = (y - middle[0]) * volume.pixel * (1 if middle[0] > trunk[0] else -1)  # some sets are stored upside down
    return np.asarray(inside & (across >= aside[0]) & (across < aside[1]) & (behind >= back[0]) & (behind < back[1]))


def _muscle(hu: Array, inner: Array, volume: Volume) -> float | None:
    """Peak of the muscle of the back, where no liver lies."""
    found = [
        plane[where] for plane, inside in zip(hu, inner, strict=True)
        if volume.is_whole and (where := _behind(plane, inside, volume, aside=BESIDE_MM, back=BEHIND_MM)) is not None
    ]  # fmt: skip
    return _mode(np.concatenate(found), *MUSCLE_HU) if found else None


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
