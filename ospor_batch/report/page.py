"""What stands on the page and in which order: first screen, then the tables of each recipe, then where all came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from ospor_batch.config import Recipe, Study
from ospor_batch.report import curves, figures, tables
from ospor_batch.report.beside import beside, checklists, people
from ospor_batch.report.cautions import Caution, cautions, estimand
from ospor_batch.report.display import DisplayTable, spoken
from ospor_batch.report.exhibits import EVERY_RECIPE, Absent, Exhibits, Image, no_exhibits
from ospor_batch.report.figures import Picture, safe_name
from ospor_batch.report.flow_diagram import REFERENCE_LEVELS, described, draw, flow
from ospor_batch.report.metrics import MORE
from ospor_batch.report.provenance import parameters, record

GENERATED = "Generated data: proves the chain, no clinical meaning."
SMALL_CELLS = (
    "This file holds small cells and is not for release. What may leave the hospital is made by the release, not by this page."
)
LEVEL_NAMES = {
    "file": "Files", "instance": "Instances", "series": "Series", "study": "Studies", "person": "Persons",
    "export_row": "Rows of the exports", "exam": "Exams", "label": "Labels",
}  # fmt: skip


@dataclass(frozen=True)
class RunTables:
    """The tables of one run, by contract name, with what the run is pinned to; all may be empty."""

    run: Mapping[str, str]  # run_id, study_digest, snapshot, code_version, models; no clock, no host
    frames: Mapping[str, pl.DataFrame]
    exhibits: Exhibits = field(default_factory=no_exhibits)

    def of(self, name: str, recipe: Recipe) -> pl.DataFrame:
        """The rows of one recipe and its reference."""
        mine = (pl.col("recipe") == recipe.key) & (pl.col("reference_id") == recipe.reference)
        return self.frames[name].filter(mine)


@dataclass(frozen=True)
class Remark:
    """A sentence of its own: a banner, a note, an estimand."""

    says: str
    kind: str = "note"


@dataclass(frozen=True)
class Warnings:
    """The warnings of a recipe; none is said too."""

    found: tuple[Caution, ...]


Block = DisplayTable | Picture | Remark | Warnings | Image | Absent


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; closed sections open by a click and are printed open."""

    heading: str
    blocks: tuple[Block, ...]
    level: int = 2
    is_closed: bool = False


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return tuple(block for section in self.sections for block in section.blocks if isinstance(block, Picture))


def compose(study: Study, run: RunTables) -> Page:
    """Put the report together: what a reader needs first stands first."""
    banner = [Remark(GENERATED, "banner")] if study.study.is_generated else []
    sections = [Section("", (*banner, Remark(SMALL_CELLS, "restricted")))]
    for recipe in study.recipes:
        sections += _first_screen(study, recipe, run=run)
    for recipe in study.recipes:
        sections += _results(study, recipe, run=run)
        sections += _shown(run, recipe.key)
        sections += [Section(heading, blocks, level=3) for heading, blocks in people(recipe, run.frames)]
        sections += _where_they_went(recipe, run=run)
    if across := _shown(run, EVERY_RECIPE):
        sections += [Section("Across recipes", ()), *across]
    sections += _all_recipes(run)
    sections.append(Section("Reporting checklists", checklists(run.frames["checklist"]), is_closed=True))
    sections.append(Section("Provenance", (record(study, run.run), parameters(study))))
    return Page(f"Report of {study.study.name}", f"Run {run.run['run_id']}", tuple(sections))


def _first_screen(study: Study, recipe: Recipe, *, run: RunTables) -> list[Section]:
    performance, prevalence = run.of("performance", recipe), run.of("prevalence", recipe)
    boxes = flow(run.frames["attrition"], recipe=recipe.key, reference_id=recipe.reference)
    last = boxes[-1].n if boxes and boxes[-1].level == "person" else None
    name = safe_name("flow", recipe.key)
    title = f"Participant flow of {recipe.key}, all centers"
    flowed = (
        Picture(name, title, described(boxes), draw(boxes, title=title, name=name))
        if boxes
        else Remark("No attrition was written.")
    )
    first = tables.partitions_of(performance)[:1] or ["no"]
    cells = tables.center_by_vendor(
        performance,
        prevalence,
        slug=safe_name("center-vendor", recipe.key),
        caption=f"{recipe.key}: center by scanner vendor, {first[0].replace('_', ' ')} partition, at the locked threshold; "
        "estimate (95 % interval)",
    )
    warned = cautions(
        study,
        recipe,
        threshold=run.of("threshold", recipe),
        performance=performance,
        prevalence=prevalence,
        linkage=run.of("linkage", recipe),
        heterogeneity=run.of("heterogeneity", recipe),
        last_in_flow=last,
    )
    return [
        Section(
            f"{recipe.key} against {recipe.reference}", (Remark(estimand(study, recipe, performance=performance), "estimand"),)
        ),
        Section("Participant flow", (flowed,), level=3),
        Section("Center by scanner vendor", (cells,), level=3),
        Section("Warnings", (Warnings(tuple(warned)),), level=3),
    ]


def _results(study: Study, recipe: Recipe, *, run: RunTables) -> list[Section]:
    performance = run.of("performance", recipe)
    blocks = _curves(study, recipe, run=run)
    return [
        Section(f"Results of {recipe.key}", ()),
        Section("Figures", tuple(blocks) or (Remark("No figure can be drawn from this run."),), level=3),
        Section("Performance", _by_stratum(performance, "performance", recipe), level=3),
        Section("Prevalence", _by_stratum(run.of("prevalence", recipe), "prevalence", recipe), level=3),
        Section("Agreement with the reference value", _by_stratum(run.of("agreement", recipe), "agreement", recipe), level=3),
        Section(
            "Threshold, calibration and heterogeneity",
            (_locked(run, recipe), _fits(run, recipe), _pooled(run, recipe)),
            level=3,
        ),
        *(Section(heading, blocks, level=3) for heading, blocks in beside(recipe, run.frames)),
    ]


def _shown(run: RunTables, recipe: str) -> list[Section]:
    """What other stages hand to the report for one recipe, or for all."""
    return [Section(heading, blocks, level=3) for heading, blocks in run.exhibits.sections(recipe)]


def _curves(study: Study, recipe: Recipe, *, run: RunTables) -> list[Block]:
    centers = [center.name for center in study.centers]
    performance = _main(run.of("performance", recipe))
    part = tables.partitions_of(performance)[0] if performance.height else ""
    shown = f"{part.replace('_', ' ')} partition"
    points = run.of("roc_point", recipe).filter(pl.col("partition") == part)
    drawn: list[Block] = []
    if points.height:
        title = f"ROC curve of {recipe.key}, {shown}, by center"
        drawn.append(figures.roc(points, performance, centers=centers, name=safe_name("roc", recipe.key), title=title))
    if performance.filter(pl.col("center") != tables.EVERYONE).height:
        pooled = run.of("heterogeneity", recipe).filter(pl.col("partition") == part, pl.col("grouping") == "center")
        title = f"AUC, sensitivity and specificity of {recipe.key} by center, {shown}, 95 % intervals"
        drawn.append(figures.forest(performance, pooled, name=safe_name("forest", recipe.key), title=title))
    vendors = _main(run.of("performance", recipe), by="scanner_vendor")
    if vendors.filter(pl.col("scanner_vendor") != tables.EVERYONE).height:
        pooled = run.of("heterogeneity", recipe).filter(pl.col("partition") == part, pl.col("grouping") == "scanner_vendor")
        drawn.append(
            curves.forest_of(
                vendors, pooled, by="scanner_vendor", metrics=("auc", "sensitivity", "specificity"),
                name=safe_name("forest-vendor", recipe.key),
                title=f"AUC, sensitivity and specificity of {recipe.key} by scanner vendor, {shown}, 95 % intervals",
            )
        )  # fmt: skip
    agreement = _main(run.of("agreement", recipe)).filter(pl.col("partition") == part)
    pairs = run.of("agreement_point", recipe).filter(pl.col("partition") == part)
    if pairs.height and agreement.filter(pl.col("metric") == "bias", pl.col("estimate").is_not_null()).height:
        title = f"Bland-Altman plot of {recipe.key}, {shown}: bias and limits of agreement, bands are 95 % intervals"
        name = safe_name("bland-altman", recipe.key)
        drawn.append(figures.bland_altman(pairs, agreement, centers=centers, name=name, title=title))
    return drawn


def _main(rows: pl.DataFrame, *, by: str = "center") -> pl.DataFrame:
    """Persons of all acquisitions, overall and by center (or vendor), in the partition that is shown first."""
    wanted = pl.col("stratum").is_in(["overall", by]) & (pl.col("unit") == "person")
    found = rows.filter(wanted, pl.col("is_same_acquisition") == tables.EVERYONE)
    return found.filter(pl.col("partition") == tables.partitions_of(found)[0]) if found.height else found


def _by_stratum(rows: pl.DataFrame, name: str, recipe: Recipe) -> tuple[Block, ...]:
    if not rows.height:
        return (Remark(f"No {name} was estimated in this run."),)
    is_more, found = pl.col("metric").is_in(sorted(MORE)), []
    for stratum in tables.strata_of(rows):
        mine = rows.filter(pl.col("stratum") == stratum)
        by = "overall" if stratum == "overall" else "by " + _stratum_said(stratum)
        for part, said, slug in ((mine.filter(~is_more), "", ""), (mine.filter(is_more), ": further measures", "more")):
            if part.height:
                caption = f"{spoken(name)} of {recipe.key}, {by}{said}"
                found.append(tables.estimates(part, name, slug=safe_name(name, recipe.key, stratum, slug), caption=caption))
    return tuple(found)


def _stratum_said(stratum: str) -> str:
    return " and ".join(part.strip().replace("_", " ") for part in stratum.split("*"))


def _locked(run: RunTables, recipe: Recipe) -> DisplayTable:
    name = safe_name("threshold", recipe.key)
    return tables.thresholds(run.of("threshold", recipe), slug=name, caption=f"Locked threshold of {recipe.key}")


def _fits(run: RunTables, recipe: Recipe) -> DisplayTable:
    return tables.plain(
        run.of("calibration", recipe),
        "calibration",
        slug=safe_name("calibration", recipe.key),
        caption=f"Calibrations fitted for {recipe.key}",
        empty="No calibration was fitted in this run.",
        hide=["recipe", "reference_id"],
    )


def _pooled(run: RunTables, recipe: Recipe) -> DisplayTable:
    name = safe_name("heterogeneity", recipe.key)
    return tables.pooled(run.of("heterogeneity", recipe), slug=name, caption=f"Pooled over centers and vendors, {recipe.key}")


def _where_they_went(recipe: Recipe, *, run: RunTables) -> list[Section]:
    attrition = run.frames["attrition"]
    ours = {recipe.key, "catalog"}
    mine = attrition.filter(pl.col("recipe").is_in(ours), pl.col("reference_id").is_in({recipe.reference, "catalog"}))
    blocks: list[Block] = []
    boxes = flow(attrition, recipe=recipe.key, reference_id=recipe.reference, levels=REFERENCE_LEVELS)
    if boxes:
        name, title = (
            safe_name("flow-reference", recipe.key),
            f"From export rows to reference labels for {recipe.key}, all centers",
        )
        blocks.append(Picture(name, title, described(boxes), draw(boxes, title=title, name=name)))
    for level, called in LEVEL_NAMES.items():
        rows = mine.filter(pl.col("level") == level)
        if rows.height:
            blocks.append(
                tables.attrition(rows, slug=safe_name("attrition", recipe.key, level), caption=f"{called}, {recipe.key}")
            )
    linked = Section(f"Linkage of {recipe.key}", _linked(run, recipe), level=3)
    windows = Section(f"Window sensitivity of {recipe.key}", _windows(run, recipe), level=3)
    told = tuple(blocks) or (Remark("No attrition was written."),)
    return [Section(f"Attrition of {recipe.key}", told, level=3), linked, windows]


def _linked(run: RunTables, recipe: Recipe) -> tuple[DisplayTable, DisplayTable]:
    linkage = run.of("linkage", recipe)
    caption = f"Persons imaged, labelled and both, {recipe.key} (month: all)"
    linked = tables.plain(
        linkage.filter(pl.col("month") == "all").sort("center"),
        "linkage",
        slug=safe_name("linkage", recipe.key),
        caption=caption,
        empty="No linkage was counted in this run.",
        hide=["recipe", "reference_id", "month"],
    )
    monthly = tables.plain(
        linkage.filter(pl.col("month") != "all").sort("center", "month"),
        "linkage",
        slug=safe_name("linkage-month", recipe.key),
        caption=f"The same by month of image or label, {recipe.key}",
        empty="No linkage was counted by month in this run.",
        hide=["recipe", "reference_id", "warning"],
    )
    return linked, monthly


def _windows(run: RunTables, recipe: Recipe) -> tuple[Block, ...]:
    rows = run.of("window", recipe)
    name, title = safe_name("windows", recipe.key), f"Persons with a match and share with the condition by window, {recipe.key}"
    drawn = (curves.windows(rows, name=name, title=title),) if rows.height else ()
    table = tables.plain(
        run.of("window", recipe).sort("before_days", "after_days"),
        "window",
        slug=safe_name("window", recipe.key),
        caption=f"The match under other windows, {recipe.key}",
        empty="No other window was tried in this run.",
        hide=["recipe", "reference_id"],
    )
    return (*drawn, table)


def _all_recipes(run: RunTables) -> list[Section]:
    rejects = tables.plain(
        run.frames["reject_count"],
        "reject_count",
        slug="rejects",
        caption="Refused files, rows, exams and series by reason",
        empty="Nothing was refused in this run.",
    )
    counted, title = run.frames["reject_count"], "Refused by level and reason, by center"
    drawn = (curves.rejects(counted, name="rejects-by-reason", title=title),) if counted.height else ()
    contrast = tables.plain(
        run.frames["contrast"],
        "contrast",
        slug="contrast",
        caption="What the headers of all CT series of the catalog say of contrast",
        empty="No CT series is in the catalog.",
    )
    return [
        Section("Rejects by reason", (*drawn, rejects)),
        Section("Contrast evidence in the catalog", (contrast,)),
        Section("What the columns mean", (_dictionary(),), is_closed=True),
    ]


def _dictionary() -> DisplayTable:
    return tables.dictionary(("performance", "prevalence", "agreement", "heterogeneity", "calibration", "attrition", "linkage"))
