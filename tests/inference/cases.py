"""A small archive of series with masks, its locator rows and the shard files made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ospor_batch.contracts.table import schema_of, whole
from ospor_batch.models.registry import spec_of
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.sources import path_text
from tests.cohort.rows import hexed
from tests.imaging.series import affine, write_nifti, write_series

LABELS = {"L1": 20, "L2": 21, "L3": 22, "L4": 23}
SPEC: PredictorSpec = spec_of("mean_hu", parameters={}, pattern="*.nii*", labels=LABELS)


def write_spine(folder: Path, *, mean_hu: float, levels: tuple[str, ...] = tuple(LABELS), mask: str = "mask.nii.gz") -> None:
    """A stack of ten slices whose levels have this mean, with its mask beside it unless the name of the mask is empty."""
    labels = np.zeros((10, 8, 8), np.uint8)
    for place, level in enumerate(LABELS):
        if level in levels:
            labels[2 * place + 1, 2:6, 2:6] = LABELS[level]
    noise = np.random.default_rng(int(mean_hu)).integers(-20, 20, labels.shape)
    hu = np.where(labels > 0, mean_hu + noise - noise[labels > 0].mean().round(), noise - 100)
    write_series(folder, hu, affine())
    if mask:
        write_nifti(folder / mask, labels, affine(), axes="RAS")


def expected_mean(folder: Path) -> float:
    """The mean of the level means, from what lies on disk, without this package."""
    import nibabel
    import pydicom

    slices = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    hu = np.stack([s.pixel_array.astype(float) + float(s.RescaleIntercept) for s in slices])
    image = nibabel.load(next(folder.glob("mask.nii*")))
    labels = np.asanyarray(image.dataobj)[::-1, ::-1].transpose(2, 1, 0)  # RAS to LPS
    return float(np.mean([hu[labels == label].mean() for label in LABELS.values() if (labels == label).any()]))


def locator_rows(root: Path, name: str, *, center: str = "north") -> list[dict[str, Any]]:
    """Rows of the locator for a folder below the root, which is one series."""
    rows = []
    for place, path in enumerate(sorted((root / name).iterdir())):
        is_image = path.suffix == ".dcm"
        rows.append(
            {
                "center": center,
                "series_key": hexed(name),
                "file_key": hexed(f"{center} {name} {path.name}"),
                "kind": "image" if is_image else "mask_nifti",
                "slice_order": place if is_image else 0,
                "archive": root.name,
                "path": path_text(f"{name}/{path.name}"),
                "size_bytes": path.stat().st_size,
                "transfer_syntax_uid": None,
                "content_digest": None if is_image else "0" * 64,
            }
        )
    return rows


def locator(root: Path, names: list[str], *, center: str = "north") -> pl.DataFrame:
    rows = [row for name in names for row in locator_rows(root, name, center=center)]
    return whole(pl.DataFrame(rows, schema=schema_of("locator")), "locator")


def write_shard(target: Path, root: Path, names: list[str]) -> None:
    """The private shard file as the infer stage writes it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = locator(root, names).with_columns(
        item_digest=pl.col("series_key"),
        series_digest=pl.col("series_key").str.reverse(),
        root=pl.lit(str(root)),
        cache=pl.lit(str(target.parent / "cache")),
    )
    rows.write_parquet(target)
