"""Tests of a GPU: skipped where there is none, tried on the CPU with OSPOR_DRY_RUN=cpu; what they measure is written down."""

from __future__ import annotations

import pytest

from tests.gpu.on_device import has_gpu, is_dry_run


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    if not has_gpu() and not is_dry_run():
        pytest.skip("torch sees no GPU here; OSPOR_DRY_RUN=cpu tries this test on the CPU")
