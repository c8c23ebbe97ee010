"""Whom a recipe learns from: labelled series of train and tuning, with their targets and what the manifest says of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from ospor_batch.config import Recipe, Study
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import schema_of
from ospor_batch.errors import ItemRefused, LedgerError, StudyError
from ospor_batch.models.trainable import Case, Parameters, Target, TrainableRecipe
from ospor_batch.models.trained import SPACING
from ospor_batch.runs import Run
from ospor_batch.store import Store

PARTITIONS = ("train", "tuning")
FACTS = (
    "center", "scanner_vendor", "kvp_kv", "kernel_class", "slice_thickness_mm", "age_at_image", "sex", "height_m",
)  # fmt: skip
TARGET_MISSING = ItemRefused("target_missing", "the matched exam has no value to learn from")


@dataclass
class Learners:
    """The labelled series of a recipe, row by row of the manifest, and those that left with their reason."""

    recipe: Recipe
    rows: pl.DataFrame
    targets: tuple[Target, ...]
    refused: dict[str, ItemRefused] = field(default_factory=dict)  # by item digest

    def of(self, partition: str) -> pl.DataFrame:
        """Distinct items of a partition that were not refused; the first row stands for images in two archives."""
        mine = self.rows.filter(pl.col("partition") == partition, ~pl.col("item_digest").is_in(list(self.refused)))
        return mine.unique(subset="item_digest", keep="first", maintain_order=True)

    def cases(self, partition: str) -> tuple[Case, ...]:
        """What is learned from, in the order of item digests."""
        names = [target.column for target in self.targets]
        found = []
        for row in self.of(partition).sort("item_digest").iter_rows(named=True):
            values = tuple(float("nan") if row[name] is None else float(row[name]) for name in names)
            found.append(Case(row["item_digest"], values, {name: row[name] for name in FACTS}))
        return tuple(found)


def learners(study: Study, recipe: Recipe, *, run: Run, store: Store, of: TrainableRecipe, parameters: Parameters) -> Learners:
    """The rows of the manifest that a recipe learns from; a series without any target is refused.

    StudyError when a target is no column of manifest or exam.
    """
    manifest = run.read("manifest").filter(
        (pl.col("recipe") == recipe.key) & pl.col("is_performance_index") & pl.col("partition").is_in(PARTITIONS)
    )
    rows = _with_exam(manifest, study, store=store, run=run)
    targets = of.targets(parameters)
    for target in targets:
        if target.column not in rows.columns:
            raise StudyError(f"recipe {recipe.key}: no column {target.column!r} to learn from; manifest and exam have none")
    known = pl.any_horizontal(pl.col(target.column).is_not_null() for target in targets if not target.is_auxiliary)
    without = rows.filter(~known)["item_digest"].to_list()
    return Learners(recipe, rows, targets, dict.fromkeys(without, TARGET_MISSING))


def _with_exam(manifest: pl.DataFrame, study: Study, *, store: Store, run: Run) -> pl.DataFrame:
    """The manifest with the measurements of the matched exam, and how far the slices of the series lie apart."""
    centers = pl.col("center").is_in([center.name for center in study.centers])
    labels = store.current("label", snapshot=run.snapshot).filter(centers)
    exams = store.current("exam", snapshot=run.snapshot).filter(centers)
    dtypes = schema_of("exam")
    measured = [
        name for name in contract("exam").columns
        if dtypes[name] == pl.Float64 and name not in manifest.columns and name != "age_at_label"
    ]  # fmt: skip
    of_exam = exams.select("center", "exam_key", *measured)
    keyed = labels.select("center", "reference_id", "label_key", "exam_key").join(
        of_exam, on=["center", "exam_key"], how="left"
    )
    # by its key alone: a label may come from another center than the image
    rows = manifest.join(keyed.drop("center", "exam_key"), on=["reference_id", "label_key"], how="left")
    series = store.current("series", snapshot=run.snapshot).filter(centers).select("center", "series_key", SPACING)
    rows = rows.join(series, on=["center", "series_key"], how="left")
    if rows.height != manifest.height:
        raise LedgerError(f"train: {manifest.height} labelled series became {rows.height} when joined with their exams")
    rows = rows.with_columns(
        is_female=pl.col("sex").replace_strict({"female": True, "male": False}, default=None, return_dtype=pl.Boolean),
        bmi_kg_m2=pl.col("weight_kg") / pl.col("height_m") ** 2,
    )
    return rows.sort("item_digest", "center", "patient_key", "series_key")
