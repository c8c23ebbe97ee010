"""Pictures of masks over slices: where the masks are, head up, the same whatever the order of axes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.overlay import SIDE, colours_of, overlay
from tests.imaging.rods import LEVELS, lying


def places(picture: np.ndarray, label: int) -> np.ndarray:
    """Where the outline of a label is drawn, (row, column)."""
    return np.argwhere((picture == colours_of(LEVELS, {})[label]).all(axis=-1))


def test_levels_stand_one_over_the_other_and_axes_do_not_matter() -> None:
    volume, labels = lying(100.0)
    picture = overlay(volume, labels, levels=LEVELS)
    assert picture.shape == (SIDE, 2 * SIDE, 3)
    sagittal = picture[:, :SIDE]
    upper, lower = places(sagittal, LEVELS["L1"]), places(sagittal, LEVELS["L2"])
    assert upper[:, 0].max() < lower[:, 0].min()
    axial = picture[:, SIDE:]
    assert len(places(axial, LEVELS["L2"])) > 20
    assert not len(places(axial, LEVELS["L1"]))
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = len(volume.hu) - 1
    turned = replace(volume, hu=volume.hu[::-1], affine=volume.affine @ flip)
    np.testing.assert_array_equal(overlay(turned, labels[::-1], levels=LEVELS), picture)


def test_tissues_have_colours_of_their_own_and_nothing_is_drawn_without_a_level() -> None:
    volume, labels = lying(100.0)
    assert len(set(colours_of(LEVELS, {"muscle": 100, "fat": 101}).values())) == 4
    with pytest.raises(ItemRefused, match="levels_missing"):
        overlay(volume, np.zeros_like(labels), levels=LEVELS)
