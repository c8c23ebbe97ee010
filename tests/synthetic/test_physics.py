"""CT numbers follow from composition and energy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ospor_batch.synthetic.ct import LINES, expected_hu
from ospor_batch.synthetic.physics import (
    EFFECTIVE_KEV,
    KEV,
    MASS_ATTENUATION,
    attenuation_per_mm,
    iodine_hu,
    mass_attenuation,
    tissue_hu,
)


@pytest.mark.parametrize("table", sorted(MASS_ATTENUATION))
def test_tables_are_met_at_their_energies(table: str) -> None:
    assert [mass_attenuation(table, kev) for kev in KEV] == pytest.approx(MASS_ATTENUATION[table])


@given(st.sampled_from(sorted(set(MASS_ATTENUATION) - {"iodine"})), st.floats(30, 149))
def test_attenuation_falls_with_energy(table: str, kev: float) -> None:
    assert mass_attenuation(table, kev + 1) < mass_attenuation(table, kev)


def test_tissues_read_as_textbooks_say_at_120_kv() -> None:
    usual = {"fat": (-115, -95), "muscle": (40, 60), "liver": (50, 65), "kidney": (25, 40), "blood": (35, 50),
             "lung": (-880, -780), "disc": (60, 100), "cortical_bone": (1200, 1600), "air": (-1001, -998)}  # fmt: skip
    for tissue, (low, high) in usual.items():
        assert low < tissue_hu(tissue, 120) < high, tissue


def test_lines_of_density_follow_the_tube_voltage() -> None:
    """Ratios of L1 between voltages (methods I3), and the line of 120 kV that studies rely on."""
    assert LINES[120] == pytest.approx((5.0, 1.25), abs=0.1)
    assert LINES[120][1] / LINES[100][1] == pytest.approx(0.927, abs=0.005)
    assert LINES[120][1] / LINES[140][1] == pytest.approx(1.053, abs=0.005)
    slopes = [LINES[kvp][1] for kvp in sorted(LINES)]
    assert slopes == sorted(slopes, reverse=True)
    assert expected_hu(80, kvp_kv=120) == pytest.approx(105, abs=0.5)


def test_iodine_reads_higher_at_lower_voltage() -> None:
    assert 20 < iodine_hu(120) < 30
    assert [iodine_hu(k) for k in sorted(EFFECTIVE_KEV)] == sorted((iodine_hu(k) for k in EFFECTIVE_KEV), reverse=True)


def test_bone_stands_out_more_at_low_energy() -> None:
    contrast = [attenuation_per_mm("cortical_bone", kev) / attenuation_per_mm("muscle", kev) for kev in (45, 60, 80)]
    assert contrast == sorted(contrast, reverse=True)
