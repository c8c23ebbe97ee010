"""What is worked out on codes and a table equals what NumPy works out on every pixel."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ospor_batch.imaging.tones import Tones, coded, mapped, toned

SHARES = (0.01, 0.25, 0.5, 0.99)
KINDS = st.sampled_from([np.uint8, np.uint16, np.int16, np.int32, np.float32])
SEEDS = st.integers(0, 2**32 - 1)


def image(seed: int, kind: type, *, spread: int = 3000) -> np.ndarray:
    random = np.random.default_rng(seed)
    low, high = (0, 256) if kind is np.uint8 else (int(random.integers(-spread, 0)) * (kind is not np.uint16), spread)
    return random.integers(low, high, (int(random.integers(1, 90)), int(random.integers(1, 90)))).astype(kind)


def curve(values: np.ndarray, seed: int) -> np.ndarray:
    """Rising, falling, neither, or flat at both ends, as tables and windows are."""
    random = np.random.default_rng(seed)
    given = values.astype(np.float64)
    return [given, 7 - 2.5 * given, np.clip(given, 20, 80), random.permutation(len(given)) / 3][seed % 4]


@given(SEEDS, KINDS)
def test_codes_and_their_table_are_the_image(seed: int, kind: type) -> None:
    stored = image(seed, kind)
    codes, found = coded(stored)
    np.testing.assert_array_equal(found[codes], stored)
    values = curve(found, seed)
    tones = toned(codes, values)
    assert (np.diff(tones.levels) >= 0).all()
    np.testing.assert_array_equal(mapped(tones.codes, tones.levels), values[codes])


@given(SEEDS, KINDS)
def test_quantiles_extremes_and_counts_are_those_of_the_pixels(seed: int, kind: type) -> None:
    stored = image(seed, kind)
    codes, found = coded(stored)
    raised = toned(codes, curve(found, seed))
    tones = Tones(raised.codes, raised.levels.astype(np.float32))
    pixels = tones.levels[tones.codes]
    for axis in (0, 1):
        np.testing.assert_array_equal(tones.quantiles(tones.codes, SHARES, axis=axis), np.quantile(pixels, SHARES, axis=axis))
    ends = (pixels <= pixels.min()).mean(), (pixels >= pixels.max()).mean()
    assert tones.share_at_an_end(tones.codes) == max(ends)
    assert tones.n_levels(tones.codes) == len(np.unique(pixels))


def test_a_range_too_wide_for_a_table_is_sorted_and_what_is_no_number_comes_last() -> None:
    codes, found = coded(np.array([[2**31 - 1, -(2**31)], [0, 0]], np.int32))
    assert (codes.tolist(), found.tolist()) == ([[2, 0], [1, 1]], [-(2**31), 0, 2**31 - 1])
    codes, found = coded(np.array([[np.nan, 1.0], [0.5, np.nan]]))
    tones = toned(codes, found)
    np.testing.assert_array_equal(tones.levels[tones.codes], [[np.nan, 1.0], [0.5, np.nan]])
    assert np.isnan(tones.levels[-1])
    assert tones.share_at_an_end(codes[:0]) == 1.0
