"""What the papers behind the recipes printed, to stand beside this run's figures; copied from their abstracts."""

from __future__ import annotations

from dataclasses import dataclass

from ospor_batch.evaluation.tables import Context, Row


@dataclass(frozen=True)
class Figure:
    """One printed figure; nothing that the abstract does not say."""

    source: str
    people: str
    metric: str
    value: float
    lower: float | None = None
    upper: float | None = None
    n: int | None = None
    unit: str | None = None  # of the predicted value that it is about, where a paper has several


JANG = "Jang 2022, J Bone Miner Res 37:369"
HUANG = "Huang 2025, Insights Imaging, doi 10.1186/s13244-024-01817-2"
JCAT = "J Comput Assist Tomogr 2023 (ResNet50 on lumbar CT)"
FANG = "Fang 2021, Eur Radiol, doi 10.1007/s00330-020-07312-8"
RADIOL_PRACTICE = "Radiol Practice 2024;39:262"
FIGURES: dict[str, tuple[Figure, ...]] = {
    "cxr_osteoporosis": (
        Figure(JANG, "internal", "auc", 0.91, 0.90, 0.92, 13026),
        Figure(JANG, "external", "auc", 0.88, 0.85, 0.90, 1089),
    ),
    "ct_cnn_smi": (
        Figure(HUANG, "external 1", "auc", 0.827, n=229),
        Figure(HUANG, "external 2", "auc", 0.859, n=198),
        Figure(HUANG, "external 3", "auc", 0.865, n=118),
        Figure(HUANG, "external, mean", "f1", 0.865),
    ),
    "ct_bmd_tbs": (
        Figure(JCAT, "test, BMD", "pearson_r", 0.81, n=52, unit="g/cm2"),
        Figure(JCAT, "test, TBS", "pearson_r", 0.54, n=52, unit="tbs"),
    ),
    "ct_qct_bmd": (Figure(FANG, "test, at least", "pearson_r", 0.98, n=863),),
    "ldct_internal_calibration": (
        Figure(RADIOL_PRACTICE, "train", "auc", 0.986, n=985),
        Figure(RADIOL_PRACTICE, "test", "auc", 0.975, n=421),
        Figure(RADIOL_PRACTICE, "train", "spearman_rho", 0.957, n=985),
        Figure(RADIOL_PRACTICE, "test", "spearman_rho", 0.955, n=421),
        Figure(RADIOL_PRACTICE, "train", "sensitivity", 0.475, n=985),
        Figure(RADIOL_PRACTICE, "test", "sensitivity", 0.421, n=421),
        Figure(RADIOL_PRACTICE, "train", "specificity", 1.0, n=985),
        Figure(RADIOL_PRACTICE, "test", "specificity", 1.0, n=421),
    ),
}
NOTHING = {"estimate": None, "estimate_lower": None, "estimate_upper": None, "interval_method": "none"}


def published_rows(context: Context, *, protocol: str, performance: list[Row], agreement: list[Row]) -> list[Row]:
    """Each printed figure beside this run's, overall in the test people; none for a recipe without a paper."""
    found = []
    for figure in FIGURES.get(protocol, ()):
        ours = next((row for row in [*performance, *agreement] if _is_overall_test(row) and _is_of(row, figure)), None)
        columns = (*NOTHING, "status", "status_reason")
        said = NOTHING | {"status": "not_estimable", "status_reason": "not_computed_in_this_run"}
        if ours is not None:
            said = {name: ours[name] for name in columns}
        found.append(
            {
                "recipe": context.recipe, "reference_id": context.reference_id, "source": figure.source,
                "people": figure.people, "metric": figure.metric, "n_published": figure.n, "published": figure.value,
                "published_lower": figure.lower, "published_upper": figure.upper,
                "n_persons": None if ours is None else ours["n_persons"], **said,
            }
        )  # fmt: skip
    return found


def _is_of(row: Row, figure: Figure) -> bool:
    return row["metric"] == figure.metric and figure.unit in {None, row.get("predicted_value_unit")}


def _is_overall_test(row: Row) -> bool:
    return (row["stratum"], row["partition"], row["is_same_acquisition"]) == ("overall", "test", "all")
