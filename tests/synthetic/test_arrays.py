"""Images are the same wherever they are computed: torch gives what NumPy gives, to the last step of a stored value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ospor_batch.errors import StudyError
from ospor_batch.synthetic.arrays import NUMPY, Arrays, arrays_of, best_device
from ospor_batch.synthetic.ct import Sampling, Scan, scan
from ospor_batch.synthetic.population import Person, Rates, people
from ospor_batch.synthetic.radiograph import radiograph


@pytest.fixture(scope="module")
def torch_cpu() -> Arrays:
    pytest.importorskip("torch", reason="torch is an optional dependency")
    return arrays_of("torch-cpu")


def someone() -> Person:
    (person,) = people("north", range(100, 101), seed=3, night=2, rates=Rates(0, 0, 0, 0))
    return replace(person, implant="pedicle_screws", motion_mm=3.0)


def imaged(arrays: Arrays, **asked: object) -> Scan:
    return scan(someone(), sampling=Sampling(128), spacing_mm=5, is_contrast=False, arrays=arrays, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", [
    {"thickness_mm": 5.0, "tilt_deg": 9.0}, {"thickness_mm": 11.0, "protocol": "chest", "kernel": "bone"},
])  # fmt: skip
def test_ct_is_the_same_in_both_libraries(torch_cpu: Arrays, asked: dict[str, object]) -> None:
    one, other = imaged(NUMPY, **asked), imaged(torch_cpu, **asked)
    off = np.abs(one.hu.astype(int) - other.hu)
    assert off.max() <= 1
    assert (off > 0).mean() < 1e-3
    for name in ("labels", "bodies", "tissue"):
        assert (getattr(one, name) == getattr(other, name)).all(), name


@pytest.mark.parametrize("view", ["PA", "LATERAL"])
def test_radiographs_are_the_same_in_both_libraries(torch_cpu: Arrays, view: str) -> None:
    one, other = (radiograph(someone(), matrix=160, view=view, arrays=arrays) for arrays in (NUMPY, torch_cpu))  # type: ignore[arg-type]
    off = np.abs(one.astype(int) - other)
    assert off.max() <= 1
    assert (off > 0).mean() < 0.02


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 30), st.integers(2, 30)),
    sigma=st.floats(0.2, 20),
    seed=st.integers(0, 999),
)
def test_blur_is_that_of_the_textbook(torch_cpu: Arrays, shape: tuple[int, int, int], sigma: float, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    expected = ndimage.gaussian_filter(values, (0, sigma, sigma), truncate=3)
    for arrays in (NUMPY, torch_cpu):
        assert arrays.off(arrays.blurred(arrays.on(values), (sigma, sigma))) == pytest.approx(expected, abs=2e-5)


def test_a_device_is_named_or_found() -> None:
    assert best_device() in {"cpu", "cuda"}
    assert arrays_of("cpu") is NUMPY
    with pytest.raises(StudyError, match="device 'abacus'"):
        arrays_of("abacus")
