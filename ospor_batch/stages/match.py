"""Match: from the catalog to the manifest, with every exclusion counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from ospor_batch.catalog.quality import DOUBTFUL, REMARKS, UNUSABLE
from ospor_batch.cohort import attrition as flows
from ospor_batch.cohort.build import Cohort, Question, build
from ospor_batch.cohort.choose import check_overrides
from ospor_batch.cohort.criteria import Steps, compile_steps
from ospor_batch.cohort.estimand import shifted_apart
from ospor_batch.cohort.manifest import with_partition
from ospor_batch.cohort.shared_persons import refuse_shared
from ospor_batch.cohort.split import assign, check_split
from ospor_batch.config import Recipe, Study
from ospor_batch.contracts import contract
from ospor_batch.contracts.table import conform
from ospor_batch.errors import LedgerError, NothingToDoError, StudyError
from ospor_batch.labels.cut_offs import cut_offs
from ospor_batch.models.registry import kind_of
from ospor_batch.runs import Run
from ospor_batch.stages.summary import StageSummary
from ospor_batch.store import Store, write_part

OVERRIDES = {"study_key": pl.String(), "series_key": pl.String()}
LINKED = "linked"  # in the private folder of the run, since it says in which month a person was imaged
KEPT_WITH_RUN = ("selection", "candidate", "linkage", "window", "windowed", "guard", "struck", "fate")


@dataclass(frozen=True)
class Catalog:
    """What match reads: series, labels with the accession number of their exam, and the counts before any recipe."""

    series: pl.DataFrame
    labels: pl.DataFrame
    events: pl.DataFrame
    counts: dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Matched:
    """What match writes: the cohort of every recipe, everyone's partition, and the flow from the first file."""

    cohorts: dict[str, Cohort]
    split: pl.DataFrame
    attrition: pl.DataFrame
    manifest: pl.DataFrame


def match(study: Study, run: Run, *, store: Store, split_seed_key: bytes) -> list[StageSummary]:
    """Write selection, candidate, manifest, split, linkage, window and attrition of every recipe; one summary a recipe.

    Tables are written even when nobody is left, so that they say why; then NothingToDoError names the step.
    """
    of = matched(study, store=store, snapshot=run.snapshot, split_seed_key=split_seed_key)
    for name in (*KEPT_WITH_RUN, LINKED):
        rows = pl.concat([conform(getattr(cohort, name), name) for cohort in of.cohorts.values()])
        rows = rows.sort(contract(name).primary_key)
        if name == LINKED:
            write_part(rows, name, target=run.private / f"{name}.parquet", stamp={"run_id": run.run_id})
        else:
            run.write(name, rows)
    run.write("cut_off", cut_offs())
    run.write("split", of.split)
    run.write("attrition", of.attrition)
    run.write("manifest", of.manifest)
    if not of.manifest.height:
        raise NothingToDoError(nobody_left(of.attrition))
    return [_summary(recipe, cohort).check() for recipe, cohort in of.cohorts.items()]


def matched(study: Study, *, store: Store, snapshot: Mapping[str, int], split_seed_key: bytes) -> Matched:
    """Match the catalog at a snapshot; writes nothing and reads no pixel."""
    centers = tuple(center.name for center in study.centers)
    check_split(study.split, centers=centers)
    for doubt in shifted_apart(study):
        raise StudyError(f"{doubt.subject}: {doubt.said}")
    questions = {recipe.key: question_of(study, recipe, key=split_seed_key) for recipe in study.recipes}
    catalog = read_catalog(study, store=store, snapshot=snapshot)
    refuse_shared(catalog.series, split=study.split)
    cohorts = {recipe.key: _cohort(study, recipe, question=questions[recipe.key], catalog=catalog) for recipe in study.recipes}
    split = assign(pl.concat([cohort.index for cohort in cohorts.values()], how="diagonal"), split=study.split)
    attrition = pl.concat(
        [flows.before_recipes(catalog.counts, centers=centers), *(cohort.attrition for cohort in cohorts.values())]
    ).sort(contract("attrition").primary_key)
    flows.check_closed(attrition)
    manifest = pl.concat([conform(with_partition(cohort.manifest, split), "manifest") for cohort in cohorts.values()])
    return Matched(cohorts, split, attrition, manifest.sort(contract("manifest").primary_key))


def read_catalog(study: Study, *, store: Store, snapshot: Mapping[str, int]) -> Catalog:
    """Read the pinned catalog of the study's centers; LedgerError when its tables do not add up."""
    mine = pl.col("center").is_in([center.name for center in study.centers])

    def read(table: str, *columns: str) -> pl.DataFrame:
        return store.current(table, snapshot=snapshot, columns=columns or None).filter(mine)

    series, labels, events = read("series"), read("label"), read("event")
    exams = read("exam", "center", "exam_key", "accession_number", "n_export_rows")
    with_number = labels.join(
        exams.select("center", "exam_key", exam_accession_number="accession_number"), on=["center", "exam_key"], how="left"
    )
    if with_number.height != labels.height:
        raise LedgerError(f"match: {labels.height} labels became {with_number.height} when joined with their exams")
    rejects = read("reject", "center", "stage", "level", "scope", "reason")
    files = read("file", "center", "fate", "reason")
    instances = read("instance", "center").group_by("center").agg(n=pl.len())
    _refuse_gaps(files, instances, rejects=rejects, series=series)
    # an event, too, is a row of an export that was read
    rows_read = pl.concat([exams.select("center", n="n_export_rows"), events.select("center", n=pl.lit(1, pl.Int64))])
    counts = {
        "file": _file_counts(files),
        "instance": _rest(instances, _refused(rejects, "catalog", "instance")),
        "export_row": _went_on(rows_read.group_by("center").agg(pl.col("n").sum()), _refused(rejects, "label", "export_row")),
    }
    for reference in study.references:
        drawn = labels.filter(pl.col("reference_id") == reference.id).group_by("center").agg(n=pl.len())
        refused = _refused(rejects.filter(pl.col("scope") == reference.id), "label", "exam")
        counts[f"exam:{reference.id}"] = _went_on(drawn, refused)
    return Catalog(series, with_number, events, counts)


def read_overrides(study: Study, recipe: Recipe) -> pl.DataFrame:
    """Read the file that fixes choices; StudyError names file and what is wrong."""
    named = study.match_of(recipe).overrides
    if named is None:
        return pl.DataFrame(schema=OVERRIDES)
    path = study.resolve(named)
    try:
        rows = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StudyError(f"match.overrides: {named} cannot be read as CSV ({type(error).__name__})") from None
    if missing := OVERRIDES.keys() - set(rows.columns):
        raise StudyError(
            f"match.overrides: {named} has no column {', '.join(sorted(missing))}; found {', '.join(rows.columns)}, "
            f"expected study_key and series_key"
        )
    for column in OVERRIDES:
        bad = rows.with_row_index("row", offset=2).filter(~pl.col(column).str.contains("^[0-9a-f]{32}$").fill_null(value=False))
        if bad.height:
            raise StudyError(
                f"match.overrides: {named} row {bad['row'][0]}, column {column}: expected a key of 32 hexadecimal digits"
            )
    return rows.select(OVERRIDES.keys())


def nobody_left(attrition: pl.DataFrame) -> str:
    """Say for every recipe which step removed the last person, or the last series when no person is known."""
    said = []
    mine = attrition.filter(pl.col("recipe") != flows.CATALOG)
    for (recipe,), rows in mine.group_by("recipe", maintain_order=True):
        steps = rows.group_by("level", "step_number", "step", "reason").agg(pl.col("n_in", "n_excluded").sum())
        eligible = steps.filter(pl.col("n_excluded") > 0).sort("step_number")
        for level, noun in (("person", "persons"), ("series", "series")):
            last = eligible.filter(pl.col("level") == level)
            if last.height:
                row = last.row(-1, named=True)
                said.append(f"recipe {recipe}: the last {row['n_excluded']} {noun} left at {row['step']!r} ({row['reason']})")
                break
        else:
            said.append(f"recipe {recipe}: the catalog holds no series")
    return f"match: nobody is left; {'; '.join(said)}"


def question_of(study: Study, recipe: Recipe, *, key: bytes) -> Question:
    """What a recipe of a study asks of the catalog; StudyError names a bad criterion."""
    return Question(
        recipe=recipe.key,
        reference_id=recipe.reference,
        match=study.match_of(recipe),
        steps=steps_of(study, recipe),
        centers=tuple(sorted(center.name for center in study.centers)),
        target=study.analysis.target,
        label_dates=study.analysis.label_dates,
        linkage_warning_below=study.analysis.linkage_warning_below,
        seed=study.study.seed,
        key=key,
        event_centers=tuple(sorted(center.name for center in study.centers if center.events)),
        phantoms={center.name: center.calibration_phantom for center in study.centers},
    )


def steps_of(study: Study, recipe: Recipe) -> Steps:
    """The criteria of a recipe as steps; StudyError names a bad one."""
    known = (*UNUSABLE, *DOUBTFUL, *REMARKS)
    return compile_steps(
        study.criteria_of(recipe), image_dates=study.analysis.image_dates, findings=known, reads=kind_of(recipe.name).reads
    )


def _cohort(study: Study, recipe: Recipe, *, question: Question, catalog: Catalog) -> Cohort:
    overrides = read_overrides(study, recipe)
    check_overrides(overrides, catalog.series)
    labels = catalog.labels.filter(pl.col("reference_id") == recipe.reference)
    return build(catalog.series, labels, question=question, overrides=overrides, events=catalog.events)


def _summary(recipe: str, cohort: Cohort) -> StageSummary:
    known = cohort.selection.filter(pl.col("patient_key").is_not_null()).select("center", "patient_key").n_unique()
    done = cohort.manifest["patient_key"].n_unique()
    paired = cohort.manifest.filter(pl.col("role") == "paired")["patient_key"].n_unique()
    notes = [("paired", paired), ("image_only", done - paired), ("candidates", cohort.candidate.height)]
    matches = cohort.candidate.filter("is_match")
    rare = {
        "labels of another center": matches.filter(pl.col("label_center") != pl.col("center"))["label_key"].n_unique(),
        "labels of several series": matches.filter(pl.col("label_key").is_duplicated())["label_key"].n_unique(),
    }
    notes += [(name, n) for name, n in rare.items() if n]
    return StageSummary("match", recipe, "person", known, done, known - done, 0, tuple(notes))


def _file_counts(files: pl.DataFrame) -> pl.DataFrame:
    reason = pl.when(pl.col("fate") == "waiting").then(pl.lit("waiting")).otherwise("reason")
    return files.with_columns(reason=reason).group_by("center", "reason").agg(n=pl.len())


def _refused(rejects: pl.DataFrame, stage: str, level: str) -> pl.DataFrame:
    mine = rejects.filter(pl.col("stage") == stage, pl.col("level") == level)
    return mine.group_by("center", "reason").agg(n=pl.len())


def _went_on(kept: pl.DataFrame, refused: pl.DataFrame) -> pl.DataFrame:
    everyone = [kept.with_columns(reason=pl.lit(None, pl.String)).select("center", "reason", "n"), refused]
    return pl.concat([part.with_columns(pl.col("n").cast(pl.Int64)) for part in everyone])


def _rest(everyone: pl.DataFrame, refused: pl.DataFrame) -> pl.DataFrame:
    left = refused.group_by("center").agg(left=pl.col("n").sum())
    kept = everyone.join(left, on="center", how="left").with_columns(n=pl.col("n") - pl.col("left").fill_null(0))
    return _went_on(kept.select("center", "n"), refused)


def _refuse_gaps(files: pl.DataFrame, instances: pl.DataFrame, *, rejects: pl.DataFrame, series: pl.DataFrame) -> None:
    """LedgerError unless files become instances or rejects, and instances stand in series or are rejects."""
    read = files.filter(pl.col("fate") == "instance").group_by("center").agg(read=pl.len())
    refused = _refused(rejects, "catalog", "instance").group_by("center").agg(refused=pl.col("n").sum())
    kept = series.group_by("center").agg(kept=pl.col("n_instances").sum())
    found = instances.rename({"n": "held"})
    for more in (read, refused, kept):
        found = found.join(more, on="center", how="full", coalesce=True)
    found = found.with_columns(pl.col("held", "read", "refused", "kept").fill_null(0).cast(pl.Int64)).sort("center")
    for row in found.iter_rows(named=True):
        if row["held"] != row["read"] or row["held"] != row["refused"] + row["kept"]:
            raise LedgerError(
                f"match {row['center']}: {row['read']} files are instances, the instance table holds {row['held']}, "
                f"of which {row['kept']} stand in series and {row['refused']} were refused; run catalog for this center again"
            )
