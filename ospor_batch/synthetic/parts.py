"""What a body is built of: stacks of ellipses along z, each of one tissue laid into another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Along = Array | float  # a number, or one number for each height
Shape = Callable[[Array], tuple[Along, Along, Along, Along]]  # heights -> x, y, half axes a and b


@dataclass(frozen=True)
class Part:
    """One ellipse for each height between low and high, mm; later parts replace earlier ones."""

    tissue: str
    under: str  # the tissue that it mostly lies in
    low: float
    high: float
    shape: Shape
    turn: Callable[[Array], Along] | float = 0.0  # angle of the half axis a from x towards y, radians
    is_flat: bool = False  # ends in planes: slices are mixed by the share of their thickness; else it tapers by its shape
    fill: float = 1.0  # share of each point that the tissue takes

    def at(self, z: Array) -> tuple[Array, Array, Array, Array, Array]:
        """x, y, a, b and turn at each height, of the heights' shape."""
        found = (*self.shape(z), self.turn(z) if callable(self.turn) else self.turn)
        x, y, a, b, turn = (_on(v, z.shape) for v in found)
        return x, y, a, b, turn


def _on(value: Along, shape: tuple[int, ...]) -> Array:
    found = np.asarray(value, dtype=np.float32)
    return found if found.shape == shape else np.full(shape, found, dtype=np.float32)


def dome(z: Array, middle: float, half: float, *, power: float = 2.0) -> Array:
    """Radius of an ellipsoid at each height, as a share of its greatest; a power beyond 2 flattens its top."""
    u = np.minimum(np.abs(z - middle) / half, 1)
    return np.asarray(np.power(1 - np.power(u, power), 1 / power), dtype=np.float32)


def ellipsoid(tissue: str, under: str, *, center: tuple[float, float, float], half: tuple[float, float, float]) -> Part:
    """An ellipsoid with its axes along x, y and z."""
    (x, y, middle), (a, b, c) = center, half
    return Part(
        tissue, under, middle - c, middle + c, lambda z: (x, y, a * dome(z, middle, c), b * dome(z, middle, c))
    )  # fmt: skip


def rising(z: Array, low: float, high: float) -> Array:
    """From 0 at low to 1 at high."""
    return np.asarray(np.clip((z - low) / (high - low), 0, 1), dtype=np.float32)
