"""Evaluate: from manifest and predictions to the tables of a run, with the flow closed to their n."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from ospor_batch.catalog.contrast import contrast_counts
from ospor_batch.cohort.attrition import check_closed
from ospor_batch.config import Recipe, Study
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import conform, empty, schema_of
from ospor_batch.errors import LedgerError
from ospor_batch.evaluation.analysis_set import AnalysisSet, analysis_set, images_of, people_groups, performance_people
from ospor_batch.evaluation.cohort_tables import (
    age_sex_rows,
    agreement_sum_rows,
    baseline_rows,
    histogram_rows,
    missingness_rows,
)
from ospor_batch.evaluation.comparison_tables import comparison_rows, interaction_rows, leave_one_out_rows, three_class_rows
from ospor_batch.evaluation.corrected_tables import (
    corrected_performance_rows,
    corrected_prevalence_rows,
    youngest_band,
)
from ospor_batch.evaluation.discrimination_tables import Asked, discrimination_rows
from ospor_batch.evaluation.flow import with_last_steps
from ospor_batch.evaluation.group_tables import heterogeneity_rows
from ospor_batch.evaluation.overlap_tables import overlap_rows
from ospor_batch.evaluation.published import published_rows
from ospor_batch.evaluation.recipe_tables import Compared, partitions_compared, recipe_rows
from ospor_batch.evaluation.risk_tables import (
    decision_rows,
    recalibration_rows,
    risk_calibration_rows,
    risk_curve_rows,
    risks_of,
)
from ospor_batch.evaluation.standardization import standard_weights
from ospor_batch.evaluation.strata import EVERYONE, OVERALL, Stratum, parse_strata
from ospor_batch.evaluation.tables import Context, Row, performance_rows, prevalence_rows, roc_rows
from ospor_batch.evaluation.threshold import LockedThreshold
from ospor_batch.evaluation.value_tables import (
    agreement_point_rows,
    agreement_rows,
    calibration_rows,
    comparison,
    repeated_rows,
)
from ospor_batch.report.checklist import Known, checklist_rows
from ospor_batch.runs import Run
from ospor_batch.stages.site_recalibration import SITES, announce_sites, site_rows
from ospor_batch.stages.specs import digests, threshold_rule, with_threshold
from ospor_batch.stages.summary import StageSummary
from ospor_batch.store import Store, write_text

UNDER = "tables"
STEMS = {"reject_count": "rejects_by_reason"}
DRAWN = {"test", "internal_test", "external"}
INJECTS = "^([=+@\t\r-])"  # a spreadsheet would run a cell that begins so


@dataclass
class _Tables:
    """Rows gathered over recipes, by contract."""

    rows: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, name: str, rows: list[Row]) -> None:
        self.rows.setdefault(name, []).extend(rows)

    def frame(self, name: str) -> pl.DataFrame:
        return pl.DataFrame(self.rows.get(name, []), schema=schema_of(name))


GATHERED = (
    "threshold", "performance", "prevalence", "agreement", "calibration", "heterogeneity", "roc_point", "agreement_point",
    "baseline", "missingness", "age_sex", "score_histogram", "agreement_sum", "recalibration_point", "risk_calibration",
    "risk_curve", "decision_curve", "three_class", "leave_one_out", "comparison", "discrimination", "published", "overlap",
)  # fmt: skip


def evaluate(study: Study, run: Run, *, store: Store) -> list[StageSummary]:
    """Write tables/ of a run as Parquet and CSV; LedgerError when n of the tables is not the last n of the flow."""
    strata = parse_strata(study.tables.strata)
    standard_weights(study.tables.standard_population)  # a standard that is not known stops before any work
    attrition, tables, summaries = run.read("attrition"), _Tables(), []
    refused = run.read("reject")
    models, compared = digests(study, run), list[Compared]()
    for recipe in (with_threshold(study, one) for one in study.recipes):
        of = _people(study, recipe, run=run, rejects=refused, digest=models[recipe.key][1:])
        context = _context(study, recipe, of=of, strata=strata, model_digest=models[recipe.key][1])
        _tabulate(context, of, tables)
        _tabulate_more(study, recipe, context=context, of=of, tables=tables)
        tables.add("overlap", overlap_rows(context, of, vertebrae=_vertebrae(run, models[recipe.key][1:])))
        compared.append(Compared(context, of))
        key = {"recipe": recipe.key, "reference_id": recipe.reference}
        attrition = with_last_steps(attrition, of, key=key)
        _refuse_open_flow(attrition, tables.frame("performance"), key=key)
        summaries.append(_summary(recipe, of))
    check_closed(attrition)
    for partition in partitions_compared(compared) if len(compared) > 1 else ():
        tables.add("comparison", recipe_rows(compared, partition=partition))
    for name in GATHERED:
        _write(run, name, tables.frame(name))
    if study.split.site_tuning:
        _write(run, SITES, tables.frame(SITES))
        announce_sites(run)
    _write(run, "attrition", attrition)
    _write(run, "linkage", run.read("linkage"))
    _write(run, "contrast", _contrast(study, run, store=store))
    _write(run, "reject_count", _reject_counts(study, run, store=store, refused=refused))
    known = Known(len(GATHERED))
    _write(run, "checklist", pl.DataFrame(checklist_rows(study, known), schema=schema_of("checklist")))
    return summaries


def csv_text(rows: pl.DataFrame) -> str:
    """CSV of a table: floats in their shortest exact form; text that a spreadsheet would run gets an apostrophe."""
    return rows.with_columns(pl.col(pl.String).str.replace(INJECTS, "'$1")).write_csv()


def _people(study: Study, recipe: Recipe, *, run: Run, rejects: pl.DataFrame, digest: tuple[str, str]) -> AnalysisSet:
    listed = run.read("manifest").filter(pl.col("recipe") == recipe.key)
    predicted = run.read("prediction").filter((pl.col("model_digest") == digest[0]) & (pl.col("parameter_digest") == digest[1]))
    mine = rejects.filter((pl.col("stage") == "infer") & (pl.col("scope") == recipe.key))
    return analysis_set(listed, predicted, rejects=mine, target=study.analysis.target)


def _vertebrae(run: Run, digest: tuple[str, str]) -> pl.DataFrame:
    rows = run.read("vertebra") if run.has("vertebra") else empty("vertebra")
    return rows.filter((pl.col("model_digest") == digest[0]) & (pl.col("parameter_digest") == digest[1]))


def _context(study: Study, recipe: Recipe, *, of: AnalysisSet, strata: tuple[Stratum, ...], model_digest: str) -> Context:
    return Context(
        recipe=recipe.key,
        reference_id=recipe.reference,
        model_digest=model_digest,
        threshold=_threshold(recipe, of, target=study.analysis.target),
        window_days=study.match_of(recipe).window,
        target=study.analysis.target,
        ppv_prevalence=study.analysis.ppv_prevalence,
        minimum_events=study.analysis.minimum_events,
        strata=strata,
        centers=tuple(sorted(center.name for center in study.centers)),
        standard=study.tables.standard_population,
        youngest=youngest_band(of.eligible),
    )


def _threshold(recipe: Recipe, of: AnalysisSet, *, target: str) -> LockedThreshold:
    known = of.paired.with_columns(truth=pl.col(f"is_{target}"))
    tuning = performance_people(known).filter(pl.col("partition") == "tuning")
    return threshold_rule(recipe).locked(tuning["truth"].to_numpy(), tuning["score"].to_numpy())


def _tabulate(context: Context, of: AnalysisSet, tables: _Tables) -> None:
    fitted = comparison(of)
    tables.add("threshold", [_threshold_row(context)])
    tables.add("calibration", calibration_rows(context, fitted))
    for people in people_groups(of):
        tables.add("performance", performance_rows(context, people))
        tables.add("prevalence", prevalence_rows(context, people))
        tables.add("agreement", agreement_rows(context, people, fitted=fitted))
        if people.acquisition == EVERYONE and people.partition in DRAWN:
            tables.add("agreement", repeated_rows(context, people, images=images_of(of, people), fitted=fitted))
            tables.add("heterogeneity", heterogeneity_rows(context, people))
            tables.add("roc_point", roc_rows(context, people))
            tables.add("agreement_point", agreement_point_rows(context, people, fitted=fitted))


def _tabulate_more(study: Study, recipe: Recipe, *, context: Context, of: AnalysisSet, tables: _Tables) -> None:
    """Tables beside the main ones: the people, corrections, risks, comparisons and classes."""
    fitted, risks = comparison(of), risks_of(of)
    tables.add(SITES, site_rows(study, recipe, context=context, of=of, fitted=fitted))
    tables.add("recalibration_point", recalibration_rows(context, risks))
    cuts = {target: _threshold(recipe, of, target=target) for target in ("low_bone_mass", "osteoporosis")}
    for people in people_groups(of):
        if people.acquisition != EVERYONE:
            continue
        tables.add("baseline", baseline_rows(context, people))
        tables.add("missingness", missingness_rows(context, people))
        if people.partition not in DRAWN:
            continue
        tables.add("performance", corrected_performance_rows(context, people))
        tables.add("prevalence", corrected_prevalence_rows(context, people))
        tables.add("age_sex", age_sex_rows(context, people))
        tables.add("score_histogram", histogram_rows(context, people))
        tables.add("agreement_sum", agreement_sum_rows(context, people, fitted=fitted))
        tables.add("risk_calibration", risk_calibration_rows(context, people, risks=risks))
        tables.add("risk_curve", risk_curve_rows(context, people, risks=risks))
        tables.add("decision_curve", decision_rows(context, people, risks=risks))
        tables.add("leave_one_out", leave_one_out_rows(context, people))
        tables.add("comparison", comparison_rows(context, people) + interaction_rows(context, people))
        tables.add("discrimination", discrimination_rows(context, people, of=of, asked=_asked(study)))
        if recipe.threshold.fixed is None:
            tables.add("three_class", three_class_rows(context, people, **cuts))
    mine = {
        name: [row for row in tables.rows.get(name, []) if row["recipe"] == recipe.key] for name in ("performance", "agreement")
    }
    tables.add("published", published_rows(context, protocol=recipe.name, **mine))


def _asked(study: Study) -> Asked:
    said = study.analysis
    rates = (said.partial_auc_max_fpr, said.fixed_specificity, said.fixed_sensitivity)
    return Asked(*rates, n_replicates=said.bootstrap_replicates, seed=study.study.seed)


def _threshold_row(context: Context) -> Row:
    locked = context.threshold
    return {
        "recipe": context.recipe,
        "reference_id": context.reference_id,
        "threshold_id": locked.id,
        "rule": locked.rule,
        "partition": locked.partition or None,
        "model_digest": context.model_digest,
        "data_digest": locked.data_digest or None,
        "n_persons": locked.n_persons,
        "n_events": locked.n_events,
        "score_cut": locked.score_cut,
        "score_unit": locked.unit,
        "status": "not_estimable" if locked.reason else "estimated",
        "status_reason": locked.reason,
    }


def _refuse_open_flow(attrition: pl.DataFrame, performance: pl.DataFrame, *, key: dict[str, str]) -> None:
    """LedgerError unless the last n of the flow is n of the performance table, over all and at each center (methods R1)."""
    mine = pl.all_horizontal(pl.col(name) == value for name, value in key.items())
    ends = attrition.filter(mine & pl.col("level").is_in(["person", "series"])).sort("step_number")
    ends = ends.group_by("level", "center", maintain_order=True).agg(pl.col("n_out").last())
    tested = (pl.col("partition") == "test") & (pl.col("is_same_acquisition") == EVERYONE) & (pl.col("metric") == "auc")
    rows = performance.filter(mine & tested & pl.col("stratum").is_in([OVERALL, "center"]))
    for center, n_persons, n_images in rows.select("center", "n_persons", "n_images").iter_rows():
        at = pl.lit(value=True) if center == EVERYONE else pl.col("center") == center
        for level, n in (("person", n_persons), ("series", n_images)):
            left = int(ends.filter(at & (pl.col("level") == level))["n_out"].sum())
            if left != n:
                raise LedgerError(f"{key['recipe']}, {center}: the flow ends with {left} {level}s, performance has {n}")


def _reject_counts(study: Study, run: Run, *, store: Store, refused: pl.DataFrame) -> pl.DataFrame:
    catalog = store.current("reject", snapshot=run.snapshot)
    ours = pl.col("center").is_in([center.name for center in study.centers])
    counted = contract("reject_count").primary_key
    return pl.concat([catalog.filter(ours), refused]).group_by(counted).agg(n=pl.len().cast(pl.Int64))


def _contrast(study: Study, run: Run, *, store: Store) -> pl.DataFrame:
    """Kinds of contrast evidence in the catalog that the run is pinned to, by center and vendor."""
    series = store.current("series", snapshot=run.snapshot)
    ours = series.filter(pl.col("center").is_in([center.name for center in study.centers]))
    return contrast_counts(ours, by=("center", "scanner_vendor"))


def _summary(recipe: Recipe, of: AnalysisSet) -> StageSummary:
    n_tested = performance_people(of.paired).filter(pl.col("partition").is_in(["internal_test", "external"])).height
    n_paired = of.paired.height
    notes = (
        ("eligible", of.eligible.height),
        ("scored", int(of.eligible["score"].count())),
        ("refused by the predictor", int(of.paired["reject_reason"].count())),
        ("further images", int(of.series["is_performance_index"].sum()) - n_paired),
    )
    return StageSummary("evaluate", recipe.key, "person", n_paired, n_tested, n_paired - n_tested, 0, notes).check()


def _write(run: Run, name: str, rows: pl.DataFrame) -> None:
    """Write a table as Parquet and as CSV beside it, sorted by its key."""
    ordered = conform(rows, name).sort(contract(name).primary_key)
    target = run.write(name, ordered, under=UNDER, stem=STEMS.get(name))
    write_text(csv_text(ordered), target=target.with_suffix(".csv"))
