"""Made-up tables of a run: four centers, three vendors, one center without anybody with the condition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ospor_batch.config import Study
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import empty, whole
from ospor_batch.report import RunTables
from ospor_batch.report.checklist import Known, checklist_rows

HOSPITALS = {"north": "ge", "south": "siemens", "east": "philips", "west": "siemens"}
CELLS = {"north": (16, 2, 22, 80), "south": (30, 6, 4, 77), "east": (0, 3, 0, 40), "west": (14, 1, 2, 33)}  # tp fp fn tn
NAME = "mean_hu"
REFERENCE = "dxa_any_site"
COMMON: dict[str, Any] = {
    "recipe": NAME, "reference_id": REFERENCE, "t_source": "reported", "t_reference": "nhanes3_white_female",
    "partition": "test", "unit": "person", "model_digest": "0123456789abcdef",
    "threshold_id": "youden@tuning n=63 -> -112.4 HU",
    "window_days": "from -180 to +180", "center": "all", "scanner_vendor": "all",
    "densitometer_vendor": "all", "sex": "all", "age_band": "all", "period": "all", "kvp": "all", "contrast_evidence": "all",
    "slice_thickness": "all",
    "is_same_acquisition": "all", "target": "osteoporosis", "interval_method": "wilson", "status": "estimated",
    "status_reason": None,
}  # fmt: skip


@dataclass
class Made:
    """A run made of tables that a test may change before it asks for the page."""

    study: Study
    frames: dict[str, pl.DataFrame] = field(default_factory=dict)

    def tables(self) -> RunTables:
        run = {
            "run_id": "00ff00ff00ff00ff",
            "study_digest": "aaaabbbbccccdddd",
            "snapshot": '{"instance": 3, "series": 2}',
            "code_version": "0.1.0+abcabcabcabc",
            "models": '{"mean_hu": ["0123456789abcdef", "fedcba9876543210", "youden"]}',
        }
        return RunTables(run, self.frames)


def table(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows that keep the contract, with what they have in common filled in."""
    columns = contract(name).columns
    filled = [{column: {**COMMON, **row}.get(column) for column in columns} for row in rows]
    return whole(pl.DataFrame(filled, schema=empty(name).schema), name)


def made_run() -> Made:
    """The study and its tables."""
    study = Study.model_validate(
        {
            "study": {"name": "made-up", "pseudonym_key": {"env": "KEY"}, "is_generated": True},
            "centers": [{"name": name, "archives": [f"/secret/{name}"]} for name in HOSPITALS],
            "references": [{"id": REFERENCE, "standard": "dxa_who"}],
            "recipes": [{"name": NAME, "reference": REFERENCE, "threshold": {"rule": "youden"}}],
            "match": {"before_days": 180, "after_days": 180},
        }
    )
    frames = {
        "attrition": _attrition(),
        "performance": table("performance", _performance()),
        "prevalence": table("prevalence", _prevalence()),
        "agreement": table("agreement", _agreement()),
        "agreement_point": table("agreement_point", _pairs()),
        "roc_point": table("roc_point", _corners()),
        "heterogeneity": table("heterogeneity", _pooled()),
        "linkage": table("linkage", _linkage()),
        "calibration": table("calibration", [_line()]),
        "reject_count": table("reject_count", _rejects()),
        "threshold": table("threshold", [_cut()]),
        "window": table("window", _windows()),
        "risk_curve": table("risk_curve", _tenths()),
        "decision_curve": table("decision_curve", _decisions()),
        "age_sex": table("age_sex", _ages()),
        "baseline": table("baseline", _baseline()),
        "checklist": table("checklist", checklist_rows(study, Known(20))),
    }
    for name in (
        "missingness",
        "risk_calibration",
        "recalibration_point",
        "three_class",
        "leave_one_out",
        "comparison",
        "discrimination",
        "published",
        "contrast",
        "overlap",
    ):
        frames[name] = empty(name)
    return Made(study, frames)


def _places() -> list[dict[str, Any]]:
    """Overall, each center, each center with its vendor, with the cells of each."""
    total = tuple(sum(cells[i] for cells in CELLS.values()) for i in range(4))
    places: list[dict[str, Any]] = [{"stratum": "overall", "cells": total}]
    for center, vendor in HOSPITALS.items():
        places.append({"stratum": "center", "center": center, "cells": CELLS[center]})
        both = {"center": center, "scanner_vendor": vendor}
        places.append({"stratum": "center*scanner_vendor", **both, "cells": CELLS[center]})
    return places


def _share(over: int, under: int, reason: str) -> dict[str, Any]:
    if under == 0:
        return {"status": "not_estimable", "status_reason": reason}
    p = over / under
    half = 1.96 * (p * (1 - p) / under) ** 0.5
    return {"estimate": p, "estimate_lower": max(0.0, p - half), "estimate_upper": min(1.0, p + half)}


def _performance() -> list[dict[str, Any]]:
    rows = []
    for place in _places():
        tp, fp, fn, tn = place["cells"]
        n = tp + fp + fn + tn
        base = {key: value for key, value in place.items() if key != "cells"} | {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
        base |= {"n_eligible": n * 2, "n_scored": n * 2 - 3, "n_persons": n, "n_images": n, "n_events": tp + fn}
        base |= {"verified_fraction": 0.5}
        area: dict[str, Any] = {"estimate": 0.9123, "estimate_lower": 0.8456, "estimate_upper": 0.9512}
        rows.append(
            base | {"metric": "auc", "interval_method": "delong_logit"} | (area if tp + fn else _share(0, 0, "no_events"))
        )
        for metric, (over, under) in {
            "sensitivity": (tp, tp + fn),
            "specificity": (tn, tn + fp),
            "ppv": (tp, tp + fp),
            "npv": (tn, tn + fn),
            "accuracy": (tp + tn, n),
        }.items():
            rows.append(base | {"metric": metric} | _share(over, under, "no_events"))
    return rows


def _prevalence() -> list[dict[str, Any]]:
    rows = []
    for place in _places():
        tp, fp, fn, tn = place["cells"]
        n = tp + fp + fn + tn
        base = {key: value for key, value in place.items() if key != "cells"} | {"verified_fraction": 0.5}
        base |= {"n_eligible": n * 2, "n_scored": n * 2 - 3, "n_persons": n, "n_images": n, "n_events": tp + fn}
        rows.append(base | {"metric": "prev_label"} | _share(tp + fn, n, ""))
        everyone = {"n_persons": n * 2 - 3, "n_images": n * 2 - 3, "n_events": tp + fp}
        rows.append(base | everyone | {"metric": "prev_test_positive"} | _share(tp + fp, n * 2 - 3, ""))
        refused = {"status": "not_estimable", "status_reason": "too_few_events"}
        value = refused if tp + fn < 10 else _share(tp + fn, n, "")
        rows.append(base | everyone | {"metric": "prev_corrected"} | value)
    return rows


def _agreement() -> list[dict[str, Any]]:
    values = {
        "pearson_r": (0.71, 0.63, 0.78),
        "bias": (-1.25, -3.5, 1.0),
        "loa_lower": (-41.2, -46.0, -37.5),
        "loa_upper": (38.7, 35.0, 43.5),
    }
    counted = {"n_eligible": 650, "n_scored": 638, "n_persons": 324, "n_images": 324, "n_events": 90, "stratum": "overall"}
    units = {"predicted_value_unit": "HU", "compared_unit": "mg/cm3", "calibration_id": "density"}
    return [
        counted | units | {"metric": m, "estimate": e, "estimate_lower": lo, "estimate_upper": up}
        for m, (e, lo, up) in values.items()
    ]


def _pairs() -> list[dict[str, Any]]:
    centers = list(HOSPITALS)
    made = ((i, centers[i % 4], 60.0 + (i * 37) % 120, ((i * 53) % 81) - 41.0) for i in range(120))
    units = {"scanner_vendor": "ge", "compared_unit": "mg/cm3", "calibration_id": "density"}
    return [
        units
        | {"point": i, "center": center, "mean": mean, "difference": gap}
        | {"calibrated_value": mean + gap / 2, "reference_value": mean - gap / 2}
        for i, center, mean, gap in made
    ]


def _corners() -> list[dict[str, Any]]:
    rows = []
    for k, center in enumerate(["all", "north", "south", "west"]):
        for i, x in enumerate((0.0, 0.02, 0.1, 0.3, 0.6, 1.0)):
            height = min(1.0, x ** (0.25 + 0.05 * k))
            point = {"false_positive_rate": x, "true_positive_rate": height, "point": i}
            rows.append({"center": center, **point, "threshold": None if i == 0 else -100.0 - i})
    return rows


def _pooled() -> list[dict[str, Any]]:
    base = {
        "grouping": "center",
        "n_groups": 3,
        "groups_left_out": "east (no_events)",
        "n_persons": 281,
        "interval_method": "reml_hksj",
    }
    area = {
        "metric": "auc",
        "estimate": 0.905,
        "estimate_lower": 0.84,
        "estimate_upper": 0.95,
        "tau2": 0.04,
        "i2_percent": 21.5,
        "q": 2.5,
    }
    few = {"n_groups": 2, "status": "not_estimable", "status_reason": "fewer_than_3_groups"}
    return [base | area | {"prediction_lower": 0.71, "prediction_upper": 0.98}, base | few | {"metric": "sensitivity"}]


def _linkage() -> list[dict[str, Any]]:
    said = "fewer than 50% of the labelled persons have an eligible image: compare the patient numbers"
    counts = {"n_imaged": 240, "n_labelled": 200, "n_both": 160, "n_label_only": 40, "n_in_window": 120, "linked_fraction": 0.8}
    few = {"n_both": 20, "n_label_only": 180, "n_in_window": 15, "linked_fraction": 0.1, "warning": said}
    return [{"center": center, "month": "all"} | (counts | few if center == "west" else counts) for center in HOSPITALS]


def _line() -> dict[str, Any]:
    return {
        "calibration_id": "density", "kind": "density_calibration", "partition": "tuning", "from_unit": "HU",
        "to_unit": "mg/cm3", "n_persons": 63, "intercept": 4.5, "slope": 0.83, "residual_sd": 19.7,
    }  # fmt: skip


def _cut() -> dict[str, Any]:
    counted = {"n_persons": 63, "n_events": 21, "score_cut": -112.4, "score_unit": "HU"}
    return counted | {"rule": "youden", "partition": "tuning", "data_digest": "00aa00aa00aa00aa"}


def _windows() -> list[dict[str, Any]]:
    base = {"target": "osteoporosis", "n_gained": 0, "n_lost": 0, "n_changed": 0}
    wide = {"before_days": 365, "after_days": 365, "is_declared": False, "n_persons": 351, "n_pairs": 351, "n_events": 99}
    declared = {"before_days": 180, "after_days": 180, "is_declared": True, "n_persons": 338, "n_pairs": 338, "n_events": 95}
    return [base | declared, base | wide | {"n_gained": 13}]


def _rejects() -> list[dict[str, Any]]:
    return [
        {"center": "north", "stage": "crawl", "level": "file", "reason": "truncated", "n": 2},
        {"center": "south", "stage": "infer", "level": "series", "reason": "mask_missing", "n": 3},
    ]


def _tenths() -> list[dict[str, Any]]:
    base = {"calibration_id": "logistic@tuning n=63", "n_persons": 33}
    return [
        base | {
            "bin": i, "n_events": 3 * i, "mean_risk": 0.05 + i / 10, "observed": 3 * i / 33, "observed_lower": 0.9 * i / 11,
            "observed_upper": min(1.0, 0.1 + i / 11), "smooth": 0.04 + i / 10,
        }
        for i in range(10)
    ]  # fmt: skip


def _decisions() -> list[dict[str, Any]]:
    base = {"calibration_id": "logistic@tuning n=63", "n_persons": 333, "n_events": 88}
    return [
        base | {"threshold": i / 100, "net_benefit": 0.25 - i / 400, "net_benefit_everyone": 0.25 - i / 100}
        for i in range(1, 100)
    ]


def _ages() -> list[dict[str, Any]]:
    counts = {"n_eligible": 30, "n_scored": 29, "n_positive": 9, "n_labelled": 20, "n_events": 7}
    return [
        counts | {"center": center, "sex": sex, "age_group": age}
        for center in ("all", "north")
        for sex in ("female", "male")
        for age in ("50-54", "60-64", "85+", "unknown")
    ]


def _baseline() -> list[dict[str, Any]]:
    number = {
        "variable": "age_at_image",
        "level": "all",
        "mean": 66.2,
        "sd": 8.1,
        "median": 66.0,
        "quartile_lower": 60.0,
        "quartile_upper": 72.5,
    }
    share = {"variable": "sex", "level": "female", "n_level": 61, "share": 0.61}
    groups = [("overall", "all", 100), ("center", "north", 40), ("center", "south", 60)]
    return [
        {
            "grouping": grouping,
            "group": group,
            "n_persons": n,
            "n_missing": 0,
            "standardised_difference": 0.12 if n < 100 else None,
        }
        | row
        for grouping, group, n in groups
        for row in (number, share)
    ]


STEPS = [
    (
        "catalog",
        "file",
        "crawl",
        [("not empty", "empty_file", 1), ("DICOM", "not_dicom", 3), ("complete", "truncated", 1)],
        1500,
    ),
    ("catalog", "instance", "catalog", [("not a copy", "duplicate_same_content", 2)], 1495),
    ("catalog", "export_row", "label", [("date valid", "invalid_date", 4)], 260),
    (
        NAME,
        "series",
        "match",
        [("no localizer", "localizer", 5), ("unenhanced", "unenhanced", 7), ("index series", "not_index", 9)],
        200,
    ),
    (
        NAME,
        "person",
        "match",
        [
            ("no localizer", "localizer", 0),
            ("unenhanced", "unenhanced", 4),
            ("label in the window", "no_label", 81),
            ("label in the window", "label_outside_window", 10),
        ],
        180,
    ),
    (NAME, "person", "infer", [("measured", "mask_missing", 2)], 85),
    (NAME, "person", "evaluate", [("in a test partition", "train_or_tuning", 2)], 83),
]


def _attrition() -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for shift, center in enumerate(HOSPITALS):
        number: dict[tuple[str, str], int] = {}
        for recipe, level, stage, steps, start in STEPS:
            n_in = start
            for step, reason, left in steps:
                number[recipe, level] = number.get((recipe, level), 0) + 1
                told = {
                    "recipe": recipe,
                    "reference_id": "catalog" if recipe == "catalog" else REFERENCE,
                    "center": center,
                    "level": level,
                }
                counts = {"n_in": n_in + shift, "n_excluded": left, "n_out": n_in + shift - left}
                rows.append(
                    told | counts | {"step": step, "stage": stage, "reason": reason, "step_number": number[recipe, level]}
                )
                n_in -= left
    return table("attrition", rows)
