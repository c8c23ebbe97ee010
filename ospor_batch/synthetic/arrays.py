"""Where image arithmetic runs: NumPy, or torch on a processor or a GPU. One implementation of body and scanner serves all.

Random numbers are NumPy's everywhere. Painting uses nothing but sums, products, quotients and roots of float32, which every
device rounds alike; blurs, spectra and logarithms differ in the last bits, so that stored values differ by 1 here and there.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ospor_batch.errors import StudyError

Array = NDArray[Any]
On = Any  # an array of whichever library computes
FEW_TAPS = 8  # reach of a blur in pixels up to which shifted copies are summed; wider ones are products with a band matrix
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
VOXELS_AT_ONCE = {"cpu": 120_000, "gpu": 16_000_000}  # of a part, above which slices are laid one by one


@dataclass(frozen=True)
class Arrays:
    """NumPy, or torch and its device; both know the same words for the arithmetic that images need."""

    xp: Any
    device: str | None = None  # None: NumPy

    @property
    def most_voxels(self) -> int:
        return VOXELS_AT_ONCE["gpu" if self.device and self.device.startswith("cuda") else "cpu"]

    def on(self, values: Array) -> On:
        """Values where the arithmetic runs."""
        return values if self.device is None else self.xp.from_numpy(np.ascontiguousarray(values)).to(self.device)

    def off(self, values: On) -> Array:
        """Values as NumPy has them."""
        return np.asarray(values if self.device is None else values.cpu().numpy())

    def full(self, shape: Sequence[int], value: float) -> On:
        return self.on(np.full(tuple(shape), value, dtype=np.float32))

    def blurred(self, values: On, sigmas: Sequence[float], *, truncate: float = 3.0) -> On:
        """Gaussian blur along the last axes, sigmas in pixels; edges are mirrored with their outermost pixel doubled."""
        for place, sigma in enumerate(sigmas):
            axis = values.ndim - len(sigmas) + place
            reach = int(truncate * sigma + 0.5)
            if reach > FEW_TAPS:
                values = self._through_band(values, axis, reach, _taps(sigma, reach))
            elif reach > 0 and self.device is None:
                values = ndimage.gaussian_filter1d(values, sigma, axis=axis, truncate=truncate)  # the same taps, faster
            elif reach > 0:
                values = self._shifted(values, axis, reach, _taps(sigma, reach))
        return values

    def _through_band(self, values: On, axis: int, reach: int, taps: tuple[float, ...]) -> On:
        """Along one of the last two axes."""
        n = values.shape[axis]
        mirrored, band = _mirrored(n, reach), np.zeros((n, n), dtype=np.float32)
        for k, tap in enumerate(taps):
            np.add.at(band, (np.arange(n), mirrored[k : k + n]), np.float32(tap))
        there = self.on(band)
        return values @ there.T if axis == values.ndim - 1 else there @ values

    def _shifted(self, values: On, axis: int, reach: int, taps: tuple[float, ...]) -> On:
        n = values.shape[axis]
        wide = values[(*[slice(None)] * axis, self.on(_mirrored(n, reach)))]
        found = 0.0
        for k, tap in enumerate(taps):
            found = found + wide[(*[slice(None)] * axis, slice(k, k + n))] * tap
        return found

    def filtered(self, values: Array, gain: Array) -> On:
        """Every slice with its two-dimensional spectrum multiplied by a gain (rows, columns / 2 + 1); values are spent."""
        shape = values.shape[1:]
        if self.device is None:
            for plane in values:
                plane[:] = fft.irfft2(fft.rfft2(plane) * gain, s=shape)
            return values
        return self.xp.fft.irfft2(self.xp.fft.rfft2(self.on(values)) * self.on(gain), s=shape)

    def spread(self, values: On) -> float:
        """Standard deviation around the mean of all values."""
        return float(values.std() if self.device is None else values.std(correction=0))

    def united(self, lows: On, highs: On) -> On:
        """Length of the union of intervals, over the first axis."""
        if self.device is None:
            order = np.argsort(lows, axis=0, kind="stable")
            lows, highs = np.take_along_axis(lows, order, 0), np.take_along_axis(highs, order, 0)
            reached = np.maximum.accumulate(highs, axis=0)
        else:
            order = self.xp.argsort(lows, dim=0, stable=True)
            lows, highs = self.xp.take_along_dim(lows, order, 0), self.xp.take_along_dim(highs, order, 0)
            reached = self.xp.cummax(highs, 0).values
        before = self.xp.concatenate([lows[:1], reached[:-1]])
        return self.xp.clip(highs - self.xp.maximum(lows, before), 0, None).sum(0)


NUMPY = Arrays(np)


@cache
def arrays_of(device: str) -> Arrays:
    """NumPy for `cpu`; torch for `torch-cpu`, `cuda` and `cuda:N`."""
    if device == "cpu":
        return NUMPY
    if device != "torch-cpu" and not device.startswith("cuda"):
        raise StudyError(f"device {device!r}: expected cpu, torch-cpu, cuda or cuda:N")
    import torch

    return Arrays(torch, device.removeprefix("torch-"))


def best_device() -> str:
    """`cuda` where torch sees a GPU, else `cpu`; torch is loaded only where a driver answers."""
    if find_spec("torch") is None or not _has_driver():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _has_driver() -> bool:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


@cache
def _taps(sigma: float, reach: int) -> tuple[float, ...]:
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    return tuple(weight / sum(weights) for weight in weights)


def _mirrored(n: int, reach: int) -> NDArray[np.int64]:
    """Places of a row of n pixels with reach more on either side."""
    at = np.arange(-reach, n + reach) % (2 * n)
    return np.where(at < n, at, 2 * n - 1 - at)
