"""Generated images are the same on a GPU as on the processor, to the last step of a stored value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.gpu.on_device import need

need("polars", "pydicom", "scipy", "gdcm", what="the generator")

import pydicom

from ospor_batch.synthetic.archive import write_study
from ospor_batch.synthetic.arrays import NUMPY, arrays_of, best_device
from ospor_batch.synthetic.ct import Sampling, scan
from ospor_batch.synthetic.population import Rates, people
from ospor_batch.synthetic.radiograph import radiograph

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    if best_device() != "cuda":
        pytest.skip("torch sees no GPU here")


def test_images_of_a_gpu_equal_those_of_the_processor() -> None:
    (person,) = people("north", range(100, 101), seed=3, night=2, rates=Rates(0, 0, 0, 0))
    person = replace(person, motion_mm=3.0, tilt_deg=7.0)
    for protocol in ("lumbar", "chest"):
        one, other = (
            scan(
                person, sampling=Sampling(256), spacing_mm=5, thickness_mm=2.5, is_contrast=False, protocol=protocol, arrays=on
            )  # type: ignore[arg-type]
            for on in (NUMPY, arrays_of("cuda"))
        )
        off = np.abs(one.hu.astype(int) - other.hu)
        assert off.max() <= 1
        assert (off > 0).mean() < 1e-3
        assert (one.labels == other.labels).all()
        assert (one.tissue != other.tissue).mean() < 1e-5
    films = [radiograph(person, matrix=512, arrays=on).astype(int) for on in (NUMPY, arrays_of("cuda"))]
    assert np.abs(films[0] - films[1]).max() <= 1


def test_a_study_of_a_gpu_has_the_files_of_the_processor(tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        write_study(tmp_path / device, preset="paper-cxr", factor=0.001, device=device)
    files = [sorted(p.relative_to(tmp_path / d) for p in (tmp_path / d).rglob("*.dcm")) for d in ("cpu", "cuda")]
    assert files[0] == files[1]
    for path in files[0]:
        one, other = (pydicom.dcmread(tmp_path / d / path).pixel_array.astype(int) for d in ("cpu", "cuda"))
        assert np.abs(one - other).max() <= 4  # a step of gray is several of a display table
