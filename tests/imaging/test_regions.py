"""What is measured inside a region."""

from __future__ import annotations

import numpy as np
import pytest

from ospor_batch.imaging.regions import anatomical_order, measure
from ospor_batch.imaging.segments import level_named
from ospor_batch.imaging.volume import Volume
from tests.imaging.series import affine

LEVELS = {"L1": 20, "L2": 21, "T12": 19}


def test_plain_mean_spread_and_size() -> None:
    hu = np.zeros((4, 5, 6), np.float32)
    labels = np.zeros((4, 5, 6), np.int32)
    labels[1, 1:3, 1:3] = 21
    hu[1, 1:3, 1:3] = [[100, 120], [140, 160]]
    labels[3, 0, 0] = 20
    hu[3, 0, 0] = -50
    labels[2, 2, 2] = 7
    lumbar_1, lumbar_2 = measure(Volume(hu, affine()), labels, levels=LEVELS)
    assert (lumbar_2.level, lumbar_2.n_voxels, lumbar_2.mean_hu) == ("L2", 4, 130.0)
    assert lumbar_2.sd_hu == pytest.approx(np.sqrt(500))
    assert lumbar_2.volume_ml == pytest.approx(4 * 6 / 1000)
    assert not lumbar_2.is_touching_edge
    assert (lumbar_1.level, lumbar_1.mean_hu, lumbar_1.sd_hu, lumbar_1.is_touching_edge) == ("L1", -50.0, 0.0, True)


def test_padding_and_missing_slices_do_not_enter() -> None:
    hu = np.full((3, 2, 2), 100, np.float32)
    hu[0] = -1024
    is_padding = np.zeros(hu.shape, bool)
    is_padding[0] = True
    labels = np.full(hu.shape, 20, np.int32)
    (region,) = measure(Volume(hu, affine(), is_padding), labels, levels=LEVELS)
    assert (region.n_voxels, region.mean_hu) == (8, 100.0)
    assert measure(Volume(hu[:1], affine(), is_padding[:1]), labels[:1], levels=LEVELS) == ()


def test_levels_run_from_head_to_foot() -> None:
    assert sorted(["L2", "T12", "L1", "T8"], key=anatomical_order) == ["T8", "T12", "L1", "L2"]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("L1", "L1"), ("l4", "L4"), ("L1 vertebra", "L1"), ("vertebrae_L3", "L3"), ("Vertebral body L02", "L2"),
        ("First lumbar vertebra", "L1"), ("Lumbar vertebra 4", "L4"), ("2nd lumbar vertebra", "L2"),
        ("Twelfth thoracic vertebra", "T12"), ("Lumbar vertebra L5", "L5"), ("Bone structure of third lumbar vertebra", "L3"),
        ("L1-L2", None), ("L1 disc", None), ("Intervertebral disc of first lumbar vertebra", None), ("Vertebra 20", None),
        ("Lumbar spine", None), ("Liver", None), ("", None), ("L1 pedicle", None), ("Segment 1", None),
    ],
)  # fmt: skip
def test_only_a_name_of_one_vertebra_is_a_level(text: str, level: str | None) -> None:
    assert level_named(text) == level
