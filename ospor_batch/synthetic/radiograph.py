"""A posteroanterior chest radiograph: attenuation summed along rays through an analytic thorax.

x to the patient's left, v downwards from the lung apices, both in mm at the detector; the beam is parallel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ospor_batch.synthetic.population import Person

Array = NDArray[Any]
FIELD_MM = 380.0
# Linear attenuation at about 60 keV, 1/mm: water 0.0206, cortical bone 0.0605 (NIST X-ray mass attenuation tables, rounded)
SOFT, BONE = 0.0206, 0.0605
LUNG = 0.26 * SOFT  # inflated lung, 0.26 g/cm3
# Extra attenuation of trabecular bone over soft tissue for each mg/cm3 of mineral, 1/mm; declared
PER_MG_CM3 = 3.0e-5
SCATTER = 0.35  # share of the detected signal behind a grid; declared
PHOTONS = 6.0e4  # unattenuated quanta of a pixel; declared
GRAY_LEVELS = 4096


def radiograph(person: Person, *, matrix: int) -> NDArray[np.uint16]:
    """Stored values of a presentation image in which bone is bright (MONOCHROME2), 12 bits."""
    draw = person.draws("radiograph")
    pixel = FIELD_MM / matrix
    axis = (np.arange(matrix, dtype=np.float32) + 0.5) * pixel
    x = axis[None, :] - FIELD_MM / 2 + np.float32(draw.uniform(-6, 6))
    v = axis[:, None] - np.float32(draw.uniform(45, 60))  # the apices lie below the upper edge
    through = _path(person, x / np.float32(person.size), v / np.float32(person.size)) * np.float32(person.size)
    primary = np.exp(-through)
    scattered = ndimage.gaussian_filter(primary, sigma=45 / pixel)
    signal = (1 - SCATTER) * primary + SCATTER * scattered
    counted = signal * PHOTONS + draw.standard_normal(signal.shape, dtype=np.float32) * np.sqrt(signal * PHOTONS)
    log = -np.log(np.maximum(counted, 1) / PHOTONS)
    low, high = np.quantile(log[matrix // 8 : -matrix // 8, matrix // 6 : -matrix // 6], (0.002, 0.98))
    gray = ((log - low) / (high - low) * 0.9 + 0.03) * GRAY_LEVELS
    return np.asarray(np.clip(gray, 0, GRAY_LEVELS - 1), dtype=np.uint16)


def _path(person: Person, x: Array, v: Array) -> Array:
    """Attenuation times length along each ray, at body scale 1."""
    bmi = person.weight_kg / person.height_m**2
    girth = math.sqrt(bmi / 24)
    soft = _trunk(x, v, girth)
    lung = np.minimum(_lungs(x, v), 0.84 * soft)
    total = SOFT * soft - (SOFT - LUNG) * lung
    total += (BONE - SOFT) * 0.75 * _ribs(x, v)  # ribs are shells: cortex and marrow
    total += _spine(person, x, v)
    return np.asarray(ndimage.gaussian_filter(total, sigma=0.6), dtype=np.float32)


def _trunk(x: Array, v: Array, girth: float) -> Array:
    """Thickness of the body along the beam: chest, shoulders, neck and arms."""
    chest = _chord(x, 165 * girth, 108 * girth) * _rise(v, 0, 22)
    neck = _chord(x, 58, 58) * (1 - _rise(v, 10, 30))
    shoulder = _chord(x, 205 * girth, 78 * girth) * _rise(v, -12 + 0 * x + np.abs(x) * 0.16, 14) * (1 - _rise(v, 70, 60))
    arms = sum(_chord(x - side * 186 * girth, 34, 42) * _rise(v, 40, 40) for side in (-1, 1))
    return np.asarray(np.maximum(np.maximum(chest, shoulder), np.maximum(neck, arms)), dtype=np.float32)


def _lungs(x: Array, v: Array) -> Array:
    """Aerated length along each ray."""
    total = np.zeros(np.broadcast_shapes(x.shape, v.shape), dtype=np.float32)
    for side, base, width in ((-1, 240.0, 118.0), (1, 252.0, 112.0)):  # the right dome stands higher
        from_middle = side * x
        wide = width * np.clip(0.30 + 0.70 * np.sqrt(np.clip((v + 4) / 120, 0, 1)), 0, 1)  # narrow at the apex
        inner = (from_middle - 18 - (wide - 18) / 2) / ((wide - 18) / 2)  # -1 at the mediastinum, 1 at the ribs
        across = 168 * np.sqrt(np.maximum(0, 1 - np.abs(inner) ** 3)) * np.clip((v + 4) / 70, 0, 1) ** 0.5
        dome = (
            base
            - 30 * np.sqrt(np.maximum(0, 1 - ((from_middle - 66) / 80) ** 2))
            + 34 * np.clip((from_middle - 66) / 52, 0, 1) ** 2
        )
        total += across * (1 - _rise(v, dome, 8))
    heart = 120 * np.sqrt(np.maximum(0, 1 - ((x - 22 - 0.12 * (v - 190)) / 66) ** 2 - ((v - 192) / 62) ** 2))
    vessels = _chord(x, 30, 70) + 0 * v  # mediastinum
    knob = 60 * np.exp(-(((x - 24) / 14) ** 2) - ((v - 84) / 17) ** 2)
    hila = 26 * np.exp(-(((np.abs(x) - 40) / 16) ** 2) - ((v - 128) / 24) ** 2)
    return np.asarray(np.maximum(0, total - heart - vessels - knob - hila), dtype=np.float32)


def _ribs(x: Array, v: Array) -> Array:
    """Bone met in nine pairs of ribs, back and front, and in the clavicles, mm."""
    bone = np.zeros(np.broadcast_shapes(x.shape, v.shape), dtype=np.float32)
    out = np.abs(x)
    for i in range(9):
        reach = 74 + 62 * math.sin(math.pi * (i + 1.5) / 13)  # half width of the cage at this rib
        inside = np.clip(1 - ((out - 12) / (reach - 12)).clip(0, 2) ** 6, 0, 1) * (out > 12)
        turn = np.clip(out / reach, 0, 1)
        back = 8 + 24.5 * i + 26 * turn**2 - 10 * np.sin(math.pi * turn)
        bone += _tube(v - back, 5.2) * inside
        front = back + 48 + 5.5 * i - 34 * (1 - turn)
        bone += 0.55 * _tube(v - front, 5.6) * inside * (out > 46) * (i < 6)  # cartilage near the sternum
    clavicle = 26 - 0.16 * (out - 15) + 5 * np.sin(out / 32)
    return np.asarray(bone + 1.3 * _tube(v - clavicle, 5.5) * ((out > 14) & (out < 150)), dtype=np.float32)


def _spine(person: Person, x: Array, v: Array) -> Array:
    """Attenuation that the vertebral column adds, growing with the person's density."""
    pitch = 24.0 + 0.015 * np.clip(v, 0, 300)
    phase = np.mod(v, pitch) / pitch
    body = np.where(phase < 0.80, 1.0, 0.35)  # discs in between
    plate = np.exp(-(((phase - 0.02) / 0.05) ** 2)) + np.exp(-(((phase - 0.78) / 0.05) ** 2))
    width = 15 + 0.028 * np.clip(v, -20, 320)
    across = np.clip((width - np.abs(x)) / 3 + 0.5, 0, 1)
    edge = np.exp(-(((np.abs(x) - width + 1.5) / 2) ** 2))
    trabecular = PER_MG_CM3 * person.vbmd_mg_cm3 * 32 * 1.4 * body * across
    cortical = (BONE - SOFT) * (2.2 * plate * across + 3.0 * edge * body)
    spinous = (BONE - SOFT) * 3.5 * np.exp(-((x / 4) ** 2) - ((phase - 0.55) / 0.22) ** 2)
    pedicle = (BONE - SOFT) * 3.0 * np.exp(-(((np.abs(x) - 0.72 * width) / 3.5) ** 2) - ((phase - 0.35) / 0.16) ** 2)
    fade = person.vbmd_mg_cm3 / 130  # thin cortex goes with low density
    return np.asarray(trabecular + (cortical + spinous + pedicle) * np.clip(fade, 0.4, 1.4), dtype=np.float32)


def _chord(x: Array, half_width: float, half_depth: float) -> Array:
    """Length of a ray through an elliptic cylinder."""
    return np.asarray(2 * half_depth * np.sqrt(np.maximum(0, 1 - (x / half_width) ** 2)), dtype=np.float32)


def _tube(distance: Array, radius: float) -> Array:
    """Bone that a ray meets in a rib of this radius."""
    return np.asarray(1.4 * np.sqrt(np.maximum(0, radius**2 - distance**2)), dtype=np.float32)


def _rise(v: Array, start: Array | float, length: float) -> Array:
    """From 0 to 1 over a length."""
    return np.asarray(np.clip((v - start) / length, 0, 1), dtype=np.float32)
