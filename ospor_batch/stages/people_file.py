"""One row a person and series for people outside: keys of its own, whole years of age, dates shifted or none."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ospor_batch.cohort.date_shift import shifted
from ospor_batch.contracts import contract
from ospor_batch.errors import LedgerError, StudyError
from ospor_batch.pseudonym import pseudonym
from ospor_batch.runs import Run, run_at
from ospor_batch.stages.evaluate import csv_text
from ospor_batch.stages.run_models import models_of
from ospor_batch.store import Store, write_text

DATES = ("image_date", "label_date")
KEYS = ("patient_key", "study_key", "series_key", "label_key")
OUTCOME = ("score", "predicted_value", "predicted_value_unit")
OLDEST_TOLD = 90  # years; older ages are left to age_band, which ends at 90+ (methods P1)
NAMES = {True: "people_with_shifted_dates.csv", False: "people.csv"}


def write_people(folder: Path, *, key: bytes, with_shifted_dates: bool) -> tuple[Path, int]:
    """Write the people of a run into its private folder; the file and its number of rows.

    Digests of files and the calendar quarter do not go along, and keys are made anew, so that the file is linked with the
    catalog only by who holds the key. A person's dates move by one number of days, in every file of the same key.
    """
    store, run = run_at(folder)
    rows = _with_outcome(run.read("manifest"), run)
    if with_shifted_dates:
        rows = shifted(_with_dates(rows, run, store), columns=DATES, person="patient_key", key=key)
    told = _told(rows, key=key).sort("recipe", "reference_id", "patient_key", "series_key")
    target = run.private / NAMES[with_shifted_dates]
    write_text(csv_text(told), target=target)
    return target, told.height


def _with_outcome(rows: pl.DataFrame, run: Run) -> pl.DataFrame:
    """Add score and predicted value; null for who was refused, and for all before inference."""
    if not run.has("prediction"):
        return rows.with_columns(pl.lit(None).alias(name) for name in OUTCOME)
    models = [(recipe, *digests) for recipe, digests in models_of(run).items()]
    named = pl.DataFrame(models, schema=["recipe", "model_digest", "parameter_digest"], orient="row")
    found = run.read("prediction").join(named, on=["model_digest", "parameter_digest"])
    return rows.join(found.select("recipe", "item_digest", *OUTCOME), on=["recipe", "item_digest"], how="left")


def _with_dates(rows: pl.DataFrame, run: Run, store: Store) -> pl.DataFrame:
    """Add the true dates, and hold them against the gap that the run was made with."""
    imaged = store.current("series", snapshot=run.snapshot, columns=["center", "series_key", "image_date"])
    measured = store.current("label", snapshot=run.snapshot, columns=["reference_id", "label_key", "label_date"])
    dated = rows.join(imaged, on=["center", "series_key"], how="left")
    dated = dated.join(measured, on=["reference_id", "label_key"], how="left")
    gap = (pl.col("label_date") - pl.col("image_date")).dt.total_days()
    wrong = dated.filter(gap.ne_missing(pl.col("gap_days"))).height
    if wrong or dated.height != rows.height:
        raise LedgerError(f"{wrong} of {rows.height} rows have dates that do not give the gap of the run")
    return dated


def _told(rows: pl.DataFrame, *, key: bytes) -> pl.DataFrame:
    listed = [c for c in contract("manifest").columns if not c.endswith("_digest") and c != "period"]
    kept = rows.select(*listed, *OUTCOME, *(date for date in DATES if date in rows.columns))
    age = pl.col("age_at_image").floor().cast(pl.Int64)
    return kept.with_columns(
        pl.when(age < OLDEST_TOLD).then(age).alias("age_at_image"),
        *(pl.Series(name, [_outside(k, name, key=key) for k in kept[name]], dtype=pl.String) for name in KEYS),
    )


def _outside(inside: str | None, name: str, *, key: bytes) -> str | None:
    return None if inside is None else pseudonym(inside, kind="outside", issuer=name, key=key)


def run_of(workspace: Path, name: str | None) -> Path:
    """The folder of a run by its id, or of the latest complete one; StudyError when there is none."""
    folder = workspace / "runs" / (name or "latest")
    if not (folder / "run.parquet").is_file():
        raise StudyError(f"{workspace.name}/runs/{name or 'latest'}: no run; `ospor-batch run STUDY` makes one")
    return folder
