"""What stands beside the main results: calibration and decisions, comparisons, classes, the people, and checklists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ospor_batch.config import Recipe
from ospor_batch.contracts import contract
from ospor_batch.report import curves, tables
from ospor_batch.report.display import Cell, Column, DisplayTable, column_of, count, decimal, estimate, number, spoken, text
from ospor_batch.report.figures import Picture, safe_name

Frames = Mapping[str, pl.DataFrame]
Blocks = tuple[DisplayTable | Picture, ...]
NAMES = ["recipe", "reference_id", "model_digest", "partition"]
DIGITS = 3
INTERVALS_SAID = {
    "delong_logit": "DeLong on the logit", "delong_wald": "DeLong", "bootstrap_percentile": "bootstrap of persons",
    "obuchowski_logit": "Obuchowski on the logit", "clopper_pearson": "Clopper-Pearson", "wilson": "Wilson",
    "clustered_logit_t": "clustered on the logit", "placement_logit": "placements on the logit",
}  # fmt: skip
METRICS_SAID = "Estimate with 95 % interval by the method that is named; shares from 0 to 1."


def beside(recipe: Recipe, frames: Frames) -> list[tuple[str, Blocks]]:
    """Sections of one recipe, in the partition that is shown first; a section without rows says so in its table."""
    return [
        ("Predicted risk: calibration and decisions", _risks(recipe, frames)),
        (
            "Discrimination by other methods, at declared rates, and bounds for missing scores",
            _more(recipe, frames),
        ),
        ("Differences between centers, vendors, tube voltages and recipes", _comparisons(recipe, frames)),
        ("Three classes", (_classes(recipe, frames),)),
        ("Published figures beside this run's", (_published(recipe, frames),)),
        *_overlaps(recipe, frames),
    ]


def people(recipe: Recipe, frames: Frames) -> list[tuple[str, Blocks]]:
    """Who the people are and what is missing of them."""
    shown = _mine(recipe, frames, "age_sex").filter(pl.col("center") == "all")
    drawn: Blocks = ()
    if shown.height:
        title = f"People of {recipe.key} by age and sex: eligible, labelled, with the condition"
        drawn = (curves.pyramid(shown, name=safe_name("pyramid", recipe.key), title=title),)
    missing = _plain(recipe, frames, "missingness", caption=f"What is missing, {recipe.key}")
    return [(f"The people of {recipe.key}", (*drawn, *_baseline(recipe, frames), missing))]


def checklists(rows: pl.DataFrame) -> tuple[DisplayTable, ...]:
    """Each reporting guideline as a table; what a person must fill in is said to be open."""
    found = []
    for guideline in sorted(set(rows["guideline"])):
        mine = rows.filter(pl.col("guideline") == guideline)
        n_open = mine.filter(pl.col("filled_by") == "needs_human").height
        columns = tuple(Column(heading) for heading in ("Item", "Asks for", "Filled by", "Answer", "Where"))
        order = sorted(mine.iter_rows(named=True), key=lambda r: (int("".join(filter(str.isdigit, r["item"]))), r["item"]))
        shown = tuple(
            (
                text(r["item"]),
                text(r["asks"]),
                text({"auto": "software"}.get(r["filled_by"], "open: a person must")),
                text(r["answer"]),
                text(r["where_found"]),
            )
            for r in order
        )
        caption = f"{guideline}: {mine.height - n_open} of {mine.height} items filled in, {n_open} open"
        found.append(DisplayTable(safe_name("checklist", guideline), caption, columns, shown))
    return tuple(found) or (DisplayTable("checklist", "Checklists", (), (), empty="No checklist was written in this run."),)


def _mine(recipe: Recipe, frames: Frames, name: str) -> pl.DataFrame:
    rows = frames[name].filter((pl.col("recipe") == recipe.key) & (pl.col("reference_id") == recipe.reference))
    rows = rows.sort(contract(name).primary_key)
    first = tables.partitions_of(rows)[:1] if "partition" in rows.columns else []
    return rows.filter(pl.col("partition").is_in(first)) if "partition" in rows.columns else rows


def _plain(recipe: Recipe, frames: Frames, name: str, *, caption: str) -> DisplayTable:
    slug = safe_name(name, recipe.key)
    rows = _mine(recipe, frames, name)
    return tables.plain(rows, name, slug=slug, caption=caption, empty="Nothing of it in this run.", hide=NAMES)


def _overlaps(recipe: Recipe, frames: Frames) -> list[tuple[str, Blocks]]:
    """Segmented vertebrae against the masks beside the images; no section where a recipe segments nothing."""
    if not _mine(recipe, frames, "overlap").height:
        return []
    caption = f"Segmented vertebrae against the masks beside the images, {recipe.key}: mean over persons"
    return [("Segmentation", (_plain(recipe, frames, "overlap", caption=caption),))]


def _risks(recipe: Recipe, frames: Frames) -> Blocks:
    curve, decisions = _mine(recipe, frames, "risk_curve"), _mine(recipe, frames, "decision_curve")
    drawn: list[DisplayTable | Picture] = []
    if curve.height:
        title = f"Calibration of {recipe.key} in tenths of the people, with 95 % intervals and a smooth curve"
        drawn.append(curves.calibration(curve, name=safe_name("calibration-curve", recipe.key), title=title))
    if decisions.height:
        title = f"Decision curve of {recipe.key}: net benefit of acting on the risk"
        drawn.append(curves.decision(decisions, name=safe_name("decision-curve", recipe.key), title=title))
    fits = frames["recalibration_point"].filter(pl.col("recipe") == recipe.key, pl.col("point") == 0).sort("calibration_id")
    fitted = tables.plain(
        fits,
        "recalibration_point",
        slug=safe_name("recalibration", recipe.key),
        caption=f"Recalibrations of the score of {recipe.key} to a risk, fitted on tuning people only",
        empty="No recalibration was tried in this run.",
        hide=["recipe", "reference_id", "point", "score", "risk"],
    )
    measured = _estimates(
        recipe, frames, "risk_calibration", ("center", "calibration_id"), caption=f"Calibration of {recipe.key}"
    )
    return (*drawn, fitted, measured)


def _comparisons(recipe: Recipe, frames: Frames) -> Blocks:
    rows = _mine(recipe, frames, "comparison")
    heads = ("Family", "First", "Second", "n first", "n second", "Difference", "p", "p, Holm", "p, BH", "Tests in family")
    shown = tuple(
        (
            text(spoken(row["family"])), text(row["first"]), text(row["second"]), count(row["n_first"]), count(row["n_second"]),
            _difference(row), *(number(row[name], digits=DIGITS, missing="no test") for name in ("p_value", "p_holm", "p_bh")),
            number(row["family_size"], digits=0),
        )
        for row in rows.iter_rows(named=True)
    )  # fmt: skip
    pairs = DisplayTable(
        safe_name("comparison", recipe.key),
        f"Differences of {recipe.key}: groups of people by unpaired DeLong, recipes on the same people by paired DeLong and "
        "McNemar, interactions by likelihood ratio; p adjusted within each family",
        tuple(Column(head, is_number=i > 2) for i, head in enumerate(heads)),
        shown,
        empty="No pair of groups could be compared in this run.",
    )
    caption = f"Pooled over centers with each left out in turn, {recipe.key}"
    return pairs, _estimates(recipe, frames, "leave_one_out", ("left_out",), caption=caption)


def _difference(row: dict[str, Any]) -> Cell:
    """A difference with its interval; of an interaction the chi-square."""
    if row["family"] != "interaction" or row["estimate"] is None:
        return estimate(row, digits=DIGITS)
    said = f"χ² = {decimal(row['estimate'], digits=2)}, df = {row['degrees_of_freedom']}"
    return Cell(said, remark=row["interval_method"], sort=row["estimate"], kind="number")


def _more(recipe: Recipe, frames: Frames) -> Blocks:
    """One row a group, unit and analysis; one column a measure and its interval."""
    rows = _mine(recipe, frames, "discrimination")
    keys = ("grouping", "group", "unit", "analysis", "n_persons", "n_images", "n_events", "n_missing")
    asked = rows.select("metric", "interval", "declared_rate").unique(maintain_order=True).rows()
    groups: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[str, Any]]] = {}
    for row in rows.sort(pl.col("grouping") != "overall", "grouping", "group", "unit", "analysis").iter_rows(named=True):
        found = groups.setdefault(tuple(row[key] for key in keys), {})
        found[row["metric"], row["interval"], row["declared_rate"]] = row
    shown = tuple(
        (
            *(text(value) for value in key[:4]), *(count(value) for value in key[4:]),
            *(estimate(found[one], digits=DIGITS) if one in found else text(None) for one in asked),
        )
        for key, found in groups.items()
    )  # fmt: skip
    columns = (
        *(column_of("discrimination", key) for key in keys),
        *(Column(_measure_said(*one), METRICS_SAID, is_number=True) for one in asked),
    )
    caption = (
        f"Discrimination of {recipe.key} by every method; missing_wrong and missing_right bound what the missing scores could "
        "change; measures at a declared rate choose their cut-off in these very people and are exploratory"
    )
    return (DisplayTable(safe_name("discrimination", recipe.key), caption, columns, shown, empty="Nothing of it in this run."),)


def _measure_said(metric: str, interval: str, rate: float | None) -> str:
    at = "" if rate is None else f" {'up to a false positive rate of' if metric == 'partial_auc' else 'of'} {rate:g}"
    return f"{spoken(metric)}{at}, {INTERVALS_SAID.get(interval, interval.replace('_', ' '))}"


def _classes(recipe: Recipe, frames: Frames) -> DisplayTable:
    return _estimates(
        recipe, frames, "three_class", ("center", "n_persons"), caption=f"Three classes by two cut-offs, {recipe.key}"
    )


def _published(recipe: Recipe, frames: Frames) -> DisplayTable:
    rows = _mine(recipe, frames, "published")
    heads = ("Source", "People", "Metric", "Published", "n published", "This run", "n")
    shown = []
    for row in rows.iter_rows(named=True):
        low, high = row["published_lower"], row["published_upper"]
        said = f"{row['published']:g}" + ("" if low is None or high is None else f" ({low:g} to {high:g})")
        many = [number(row[name], digits=0, missing="not stated") for name in ("n_published", "n_persons")]
        shown.append(
            (
                text(row["source"]),
                text(row["people"]),
                text(row["metric"]),
                text(said),
                many[0],
                estimate(row, digits=DIGITS),
                many[1],
            )
        )
    columns = tuple(Column(head, is_number=i > 2) for i, head in enumerate(heads))
    caption = f"Figures of the paper behind {recipe.name}, copied from its abstract, beside this run's"
    return DisplayTable(
        safe_name("published", recipe.key), caption, columns, tuple(shown), empty="This recipe has no paper behind it."
    )


def _estimates(recipe: Recipe, frames: Frames, name: str, keys: tuple[str, ...], *, caption: str) -> DisplayTable:
    """One row per key, one column per metric."""
    rows = _mine(recipe, frames, name)
    metrics = list(dict.fromkeys(rows["metric"].to_list()))
    groups: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows.iter_rows(named=True):
        groups.setdefault(tuple(row[key] for key in keys), {})[row["metric"]] = row
    shown = tuple(
        (*(text(value) for value in key), *(_of_groups(found[m]) if m in found else text(None) for m in metrics))
        for key, found in groups.items()
    )
    columns = (*(column_of(name, key) for key in keys), *(Column(spoken(metric), is_number=True) for metric in metrics))
    return DisplayTable(safe_name(name, recipe.key), caption, columns, shown, empty="Nothing of it in this run.")


def _of_groups(row: dict[str, Any]) -> Cell:
    """An estimate; where it is pooled, of how many groups."""
    return estimate(row, digits=DIGITS, sub=f"{row['n_groups']} groups" if "n_groups" in row else "")


def _baseline(recipe: Recipe, frames: Frames) -> Blocks:
    """Table 1: variables down, groups across; SMD against everybody outside the group."""
    rows, found = _mine(recipe, frames, "baseline"), []
    for grouping in ("center", "scanner_vendor"):
        mine = rows.filter(pl.col("grouping").is_in(["overall", grouping]))
        if not mine.height:
            continue
        groups = ["all", *sorted(set(mine["group"]) - {"all"})]
        cells = {(r["variable"], r["level"], r["group"]): r for r in mine.iter_rows(named=True)}
        lines = list(dict.fromkeys((r["variable"], r["level"]) for r in mine.iter_rows(named=True)))
        sizes = {r["group"]: r["n_persons"] for r in mine.iter_rows(named=True)}
        shown = [
            (text(spoken(v)), text(None if level == "all" else level), *(_described(cells.get((v, level, g))) for g in groups))
            for v, level in lines
        ]
        columns = (Column("Variable"), Column("Level"), *(Column(f"{g} (n = {sizes[g]})") for g in groups))
        by = grouping.replace("_", " ")
        caption = f"Table 1 of {recipe.key} by {by}: mean ± SD, median (quartiles), or n (%); SMD against all others"
        found.append(DisplayTable(safe_name("baseline", recipe.key, grouping), caption, columns, tuple(shown)))
    return tuple(found)


def _described(row: dict[str, object] | None) -> Cell:
    if row is None:
        return Cell("–", remark="no such level")
    smd = row["standardised_difference"]
    sub = f"SMD {decimal(smd, digits=2)}" if isinstance(smd, float) else ""
    missing = f"{row['n_missing']} missing" if row["n_missing"] else ""
    if row["n_level"] is not None:
        share = row["share"]
        said = f"{row['n_level']}" + (f" ({100 * share:.1f} %)" if isinstance(share, float) else "")
        return Cell(said, sub="; ".join(filter(None, [sub, missing])), sort=float(str(row["n_level"])), kind="text")
    if row["mean"] is None:
        return Cell("–", sub=f"{row['n_missing']} missing")
    sd = f" ± {row['sd']:.1f}" if isinstance(row["sd"], float) else ""
    spread = f"{row['median']:.1f} ({row['quartile_lower']:.1f} to {row['quartile_upper']:.1f})"
    return Cell(f"{row['mean']:.1f}{sd}", sub="; ".join(filter(None, [spread, sub, missing])), kind="text")
