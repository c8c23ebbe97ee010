"""A small made-up manifest with predictions, written and read through a run, for tests of the tables."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ospor_batch.config import Study
from ospor_batch.contracts.table import empty, schema_of
from ospor_batch.runs import Run, open_run
from ospor_batch.stages.evaluate import evaluate
from ospor_batch.stages.specs import digests
from ospor_batch.store import Store

Row = dict[str, Any]
TABLES = {
    "threshold", "performance", "prevalence", "agreement", "calibration", "heterogeneity", "attrition", "linkage", "roc_point",
    "agreement_point", "rejects_by_reason", "baseline", "missingness", "age_sex", "score_histogram", "agreement_sum",
    "recalibration_point", "risk_calibration", "risk_curve", "decision_curve", "three_class", "leave_one_out", "comparison",
    "published", "checklist", "discrimination", "contrast", "overlap",
}  # fmt: skip


LABEL_COLUMNS = {
    "label_key", "gap_days", "category", "is_low_bone_mass", "is_osteoporosis", "label_value", "label_value_unit",
    "densitometer_vendor", "t_source", "t_reference", "is_same_acquisition",
}  # fmt: skip


def key_of(*words: object) -> str:
    return hashlib.sha256("|".join(map(str, words)).encode()).hexdigest()[:32]


def study(**changes: Any) -> Study:
    recipe = {"name": "mean_hu", "reference": "qct", "threshold": {"rule": "youden"}} | changes.pop("recipe", {})
    return Study.model_validate(
        {
            "study": {"name": "made-up", "pseudonym_key": {"env": "NOT_READ"}},
            "centers": [{"name": name, "archives": ["."]} for name in ("east", "north", "south", "west")],
            "references": [{"id": "qct", "standard": "qct"}],
            "recipes": [recipe],
            "analysis": {"minimum_events": 3},
            "tables": {"strata": ["center", "scanner_vendor", "center*scanner_vendor", "kvp", "densitometer_vendor"]},
            **changes,
        }
    )


@dataclass
class Person:
    """One eligible person of the made-up cohort; density is null for the unlabelled."""

    center: str
    number: int
    partition: str
    hu: float | None
    density: float | None
    vendor: str = "siemens"
    kvp: float | None = 120.0
    same_acquisition: bool | None = False
    blind_hu: float | None = None  # set: the label-blind index is another series


def manifest_rows(person: Person) -> list[Row]:
    patient = key_of("patient", person.center, person.number)
    shared = {
        "recipe": "mean_hu", "reference_id": "qct", "center": person.center, "patient_key": patient, "mask_kind": "nifti",
        "mask_digest": None, "role": "image_only" if person.density is None else "paired", "partition": person.partition,
        "window_days": "from -180 to +180", "lumbar_spine_bmd_g_cm2": None, "is_phantom_in_view": None,
        "phantom_source": None, "scanner_model": None,
        "modality": "CT", "body_region": "abdomen", "contrast_evidence": "tag_absent", "kernel_class": "standard",
        "slice_thickness_mm": 2.0, "age_at_image": 66.0, "age_band": "60-69", "sex": "female", "period": "2022Q1",
        "scanner_vendor": person.vendor, "kvp_kv": person.kvp,
    }  # fmt: skip
    label: Row = {
        "label_key": key_of("label", patient), "gap_days": -3, "category": None, "is_low_bone_mass": None,
        "label_value_unit": "mg/cm3", "densitometer_vendor": "mindways", "t_source": "not_applicable",
        "t_reference": "not_applicable", "is_same_acquisition": person.same_acquisition,
    }  # fmt: skip
    unlabelled = dict.fromkeys(label) | {
        "densitometer_vendor": "unverified", "t_source": "unverified", "t_reference": "unverified",
        "is_osteoporosis": None, "label_value": None,
    }  # fmt: skip
    if person.density is not None:
        label |= {"is_osteoporosis": person.density < 80, "label_value": person.density}
    rows = []
    has_other = person.blind_hu is not None
    for name, is_matched, is_blind in (("a", person.density is not None, not has_other), ("b", False, True)):
        if name == "b" and not has_other:
            continue
        series = key_of("series", patient, name)
        own = {
            "study_key": key_of("study", patient, name), "series_key": series, "series_digest": key_of("images", series),
            "item_digest": key_of("item", series), "is_performance_index": is_matched, "is_prevalence_index": is_blind,
        }  # fmt: skip
        rows.append(shared | own | (label if is_matched else unlabelled))
    return rows


def people(n: int = 60) -> list[Person]:
    """Persons in four centers and every partition; every fourth is unlabelled, south is external."""
    rng, made = np.random.default_rng(3), []
    for i in range(n):
        center = ("east", "north", "south", "west")[i % 4]
        partition = "external" if center == "south" else ("train", "tuning", "internal_test", "internal_test")[(i // 4) % 4]
        density = float(rng.uniform(50, 130))
        made.append(
            Person(
                center,
                i,
                partition,
                round(10 + 1.1 * density + float(rng.normal(0, 18)), 3),
                None if i % 5 == 4 else density,
                ("siemens", "ge_medical")[i % 3 == 0],
                120.0 if i % 7 else 100.0,
                same_acquisition=i % 2 == 0,
            )
        )
    return made


@dataclass
class Made:
    study: Study
    run: Run
    store: Store

    def evaluate(self) -> None:
        summaries = evaluate(self.study, self.run, store=self.store)
        assert [s.closes for s in summaries] == [True] * len(self.study.recipes)

    def table(self, name: str, **values: str) -> pl.DataFrame:
        stem = "rejects_by_reason" if name == "reject_count" else None
        rows = self.run.read(name, under="tables", stem=stem)
        return rows.filter(pl.lit(value=True), *(pl.col(column) == value for column, value in values.items()))

    def row(self, name: str, **values: str) -> Row:
        found = self.table(name, **{"stratum": "overall", "partition": "test", "is_same_acquisition": "all", **values})
        assert found.height == 1, found
        return found.row(0, named=True)


def attrition(rows: pl.DataFrame, centers: tuple[str, ...]) -> pl.DataFrame:
    """What match leaves: series end with the manifest, persons with the paired."""
    made = []
    for center in centers:
        mine = rows.filter(pl.col("center") == center)
        n_people, n_series = mine["patient_key"].n_unique(), mine.height
        n_paired = mine.filter(pl.col("role") == "paired")["patient_key"].n_unique()
        for level, step, n_in, n_out in (
            ("series", "index series", n_series + 2, n_series),
            ("person", "label in the window", n_people, n_paired),
        ):
            made.append(
                {
                    "recipe": "mean_hu",
                    "reference_id": "qct",
                    "center": center,
                    "level": level,
                    "step_number": 1,
                    "step": step,
                    "stage": "match",
                    "reason": "not_index",
                    "n_in": n_in,
                    "n_excluded": n_in - n_out,
                    "n_out": n_out,
                }
            )
    return pl.DataFrame(made, schema=schema_of("attrition"))


def make(tmp_path: Path, cohort: list[Person], *, of: Study | None = None, refused: dict[int, str] | None = None) -> Made:
    """Write what match and infer leave: ``refused`` maps a person's number to the reason of the predictor."""
    of, refused, store = of or study(), refused or {}, Store(tmp_path)
    run = open_run(of, store, models=digests(of), snapshot={})
    predictor, model, parameters = digests(of)["mean_hu"]
    rows, predictions, rejects = [], [], []
    for person in cohort:
        listed = manifest_rows(person)
        rows += listed
        for row, hu in zip(listed, (person.hu, person.blind_hu), strict=False):
            if person.number in refused:
                rejects.append(
                    {
                        "center": person.center,
                        "stage": "infer",
                        "level": "series",
                        "item_key": row["series_key"],
                        "scope": "mean_hu",
                        "reason": refused[person.number],
                        "detail": "",
                        "is_transient": False,
                    }
                )
            else:
                predictions.append(
                    {
                        "item_digest": row["item_digest"],
                        "series_digest": row["series_digest"],
                        "predictor": predictor,
                        "model_digest": model,
                        "parameter_digest": parameters,
                        "score": -float(hu or 0),
                        "predicted_value": hu,
                        "predicted_value_unit": "HU",
                        "n_vertebrae": 4,
                        "levels": "L1",
                        "flags": "",
                        "device": "cpu",
                    }
                )
    manifest = pl.DataFrame(rows, schema=schema_of("manifest"))
    run.write("manifest", manifest)
    run.write("prediction", pl.DataFrame(predictions, schema=schema_of("prediction")))
    run.write("reject", pl.DataFrame(rejects, schema=schema_of("reject")))
    run.write("linkage", empty("linkage"))
    run.write("attrition", attrition(manifest, tuple(c.name for c in of.centers)))
    return Made(of, run, store)
