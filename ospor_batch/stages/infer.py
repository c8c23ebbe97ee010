"""Predict what is in the manifest and not yet in the prediction store; then draw the run's tables from the store."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import WORKER_DIED, Executor
from ospor_batch.config import Recipe, Study
from ospor_batch.contracts.table import conform, empty
from ospor_batch.errors import ItemRefused, LedgerError, OsporError
from ospor_batch.inference.shard import PARTS, ShardTask, predict_shard, reject_row, write_parts
from ospor_batch.models.registry import PREDICTORS, spec_of
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.runs import Run
from ospor_batch.stages.summary import Progress, StageSummary
from ospor_batch.store import Store, write_rows

MEGABYTE = 1_000_000
SHARDS_PER_WORKER = 4  # at least, so that a small study keeps every worker busy and loses little when one dies
ITEM = ["center", "series_key"]


def digests(study: Study) -> dict[str, tuple[str, str, str]]:
    """Predictor, model digest and parameter digest of every recipe, by its key; loads no model."""
    specs = {recipe.key: _spec(recipe) for recipe in study.recipes}
    return {key: (spec.predictor, spec.model_digest, spec.parameter_digest) for key, spec in specs.items()}


def infer(study: Study, run: Run, *, store: Store, executor: Executor, progress: Progress | None = None) -> list[StageSummary]:
    """Predict the manifest on the executor and write prediction, vertebra and reject of the run.

    progress: told the items finished, earlier runs included, and all items. LedgerError when a row of the manifest is not
    exactly one of prediction and reject.
    """
    manifest = run.read("manifest")
    specs = {recipe.key: _spec(recipe) for recipe in study.recipes}
    work = [_work(manifest, run, spec=spec, recipes=recipes) for spec, recipes in _shared(specs).items()]
    told = _Told(progress, sum(w.wanted.height for w in work), sum(w.wanted.height - w.todo.height for w in work))
    told.more(0)
    for part in work:
        if part.todo.height:
            files = _files(part.todo, study, store=store, run=run)
            with _executor_for(part.spec, study, given=executor) as opened:
                _predict_all(files, _Place(part.spec, run), executor=opened, study=study, told=told)
    return _assemble(study, run, manifest=manifest, specs=specs)


def cut_shards(items: pl.DataFrame, *, megabytes: float) -> list[list[str]]:
    """Cut items into shards of at most so many megabytes, in the order given; a larger item is a shard of its own.

    items: item_digest and size_bytes, in the order in which the disk holds them.
    """
    shards: list[list[str]] = []
    filled = 0.0
    for digest, size in items.select("item_digest", "size_bytes").iter_rows():
        if not shards or filled + size > megabytes * MEGABYTE:
            shards.append([])
            filled = 0.0
        shards[-1].append(digest)
        filled += size
    return shards


@dataclass(frozen=True)
class _Work:
    """What one spec has to do: every item it is wanted for, and those not finished."""

    spec: PredictorSpec
    wanted: pl.DataFrame
    todo: pl.DataFrame


@dataclass
class _Told:
    """Counts finished items for the progress bar."""

    progress: Progress | None
    total: int
    done: int

    def more(self, n_items: int) -> None:
        self.done += n_items
        if self.progress is not None:
            self.progress(self.done, self.total)


@dataclass(frozen=True)
class _Place:
    """Where the shards of a spec are read from and their parts written to."""

    spec: PredictorSpec
    run: Run
    shards: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shards", self.run.private.absolute() / "shards")

    def task(self, shard: Sequence[str]) -> ShardTask:
        return ShardTask(_shard_name(shard), self.shards, self.run.predictions.absolute(), self.spec)


def _spec(recipe: Recipe) -> PredictorSpec:
    masks = recipe.masks
    return spec_of(recipe.name, parameters=recipe.parameters, pattern=masks.pattern, labels=masks.labels)


def _shared(specs: dict[str, PredictorSpec]) -> dict[PredictorSpec, list[str]]:
    """Recipes by the spec they share."""
    by_spec: dict[PredictorSpec, list[str]] = {}
    for recipe, spec in sorted(specs.items()):
        by_spec.setdefault(spec, []).append(recipe)
    return by_spec


@contextlib.contextmanager
def _executor_for(spec: PredictorSpec, study: Study, *, given: Executor) -> Iterator[Executor]:
    """The GPU cluster of the study for a predictor that wants one; else the given executor."""
    if study.compute.gpu is not None and PREDICTORS[spec.predictor].wants_gpu:
        with open_executor(study.compute.gpu) as opened:
            yield opened
    else:
        yield given


def _work(manifest: pl.DataFrame, run: Run, *, spec: PredictorSpec, recipes: Sequence[str]) -> _Work:
    rows = manifest.filter(pl.col("recipe").is_in(recipes)).select("item_digest", "series_digest", *ITEM)
    # the same images in two archives are one item: the first center's files are read
    wanted = rows.sort("item_digest", *ITEM).unique(subset="item_digest", keep="first", maintain_order=True)
    _clear(run, spec)
    finished = pl.concat([_stored("prediction", run, spec)["item_digest"], _stored("reject", run, spec)["item_key"]])
    return _Work(spec, wanted, wanted.filter(~pl.col("item_digest").is_in(finished.implode())))


def _clear(run: Run, spec: PredictorSpec) -> None:
    """Throw away what finishes nothing: transient rejects, and what a killed worker left unfinished."""
    folder = run.predictions / spec.key
    for stale in [*folder.glob("reject_transient-*.parquet"), *folder.glob(".*.unfinished")]:
        stale.unlink(missing_ok=True)


def _stored(part: str, run: Run, spec: PredictorSpec) -> pl.DataFrame:
    """All rows of one kind of part in the prediction store of a spec."""
    files = sorted((run.predictions / spec.key).glob(f"{part}-*.parquet"))
    name = PARTS[part]
    return pl.concat([empty(name), *(conform(pl.read_parquet(file), name) for file in files)])


def _files(todo: pl.DataFrame, study: Study, *, store: Store, run: Run) -> pl.DataFrame:
    """The files of every item to be read, with the archive root as a path; folder by folder, as the disk holds them."""
    located = store.current("locator", snapshot=run.snapshot).join(todo, on=ITEM)
    n_lost = todo.join(located.filter(pl.col("kind") == "image"), on=ITEM, how="anti").height
    if n_lost:
        raise LedgerError(f"infer: {n_lost} series of the manifest have no image in the catalog's locator")
    roots = {archive: study.archive_root(archive) for archive in located["archive"].unique()}
    folder = pl.concat_str("root", pl.col("path").str.replace(r"[^/]*$", ""), separator="/")
    return (
        located.with_columns(
            root=pl.col("archive").replace_strict(roots, return_dtype=pl.String), cache=pl.lit(str(store.cache))
        )
        .with_columns(folder=folder.min().over("item_digest"))
        .sort("folder", "item_digest", "kind", "slice_order", "file_key")
        .drop("folder")
    )


def _predict_all(files: pl.DataFrame, place: _Place, *, executor: Executor, study: Study, told: _Told) -> None:
    items = files.group_by("item_digest", maintain_order=True).agg(pl.col("size_bytes").sum())
    even = int(items["size_bytes"].sum()) / (SHARDS_PER_WORKER * executor.n_workers * MEGABYTE)
    shards = cut_shards(items, megabytes=min(float(study.compute.cpu.shard_megabytes), even))
    suspects: list[str] = []
    try:
        while shards:
            died = _round(shards, files, place=place, executor=executor, told=told)
            suspects += [shard[0] for shard in died if len(shard) == 1]
            # the poisoned item is in one half; the other is finished in the next round
            shards = [half for shard in died if len(shard) > 1 for half in _halves(shard)]
        for suspect in sorted(suspects):
            # once more and alone on the cluster: it may have died of a neighbour, or with its machine
            if _round([[suspect]], files, place=place, executor=executor, told=told):
                _reject_dead(suspect, files, place=place)
                told.more(1)
    finally:
        shutil.rmtree(place.shards, ignore_errors=True)  # they hold paths


def _round(
    shards: Sequence[list[str]], files: pl.DataFrame, *, place: _Place, executor: Executor, told: _Told
) -> list[list[str]]:
    """Predict shards; those whose worker died come back."""
    _write_shards(shards, files, place=place)
    tasks = {place.task(shard): shard for shard in shards}
    died = []
    for outcome in executor.map(predict_shard, list(tasks)):
        if outcome.error == WORKER_DIED:
            died.append(tasks[outcome.item])
        elif outcome.error is not None or outcome.value is None:
            raise OsporError(
                f"infer: shard {outcome.item.shard} ended with {outcome.error} on its worker: a fault of this program; "
                'run it with [compute.cpu] cluster = "in_line" to see where'
            )
        else:
            told.more(outcome.value.n_items)
    return sorted(died)


def _write_shards(shards: Sequence[list[str]], files: pl.DataFrame, *, place: _Place) -> None:
    named = pl.DataFrame(
        [(digest, _shard_name(shard)) for shard in shards for digest in shard],
        schema={"item_digest": pl.String, "shard": pl.String},
        orient="row",
    )
    parts = files.join(named, on="item_digest", maintain_order="left").partition_by("shard", as_dict=True)
    for (name,), rows in parts.items():
        write_rows(rows.drop("shard"), target=place.shards / f"{name}.parquet")


def _shard_name(shard: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(shard)).encode()).hexdigest()[:16]


def _halves(shard: list[str]) -> tuple[list[str], list[str]]:
    middle = len(shard) // 2
    return shard[:middle], shard[middle:]


def _reject_dead(item_digest: str, files: pl.DataFrame, *, place: _Place) -> None:
    center = files.filter(pl.col("item_digest") == item_digest)["center"][0]
    refusal = ItemRefused(WORKER_DIED, "the worker process died twice on this item alone")
    row = reject_row(item_digest, center, spec=place.spec, refusal=refusal)
    write_parts({"reject": [row]}, place.task([item_digest]))


def _assemble(study: Study, run: Run, *, manifest: pl.DataFrame, specs: dict[str, PredictorSpec]) -> list[StageSummary]:
    """Write the run's tables from the prediction store and close the ledger of every recipe and center."""
    predictions, vertebrae, rejects = [empty("prediction")], [empty("vertebra")], [empty("reject")]
    for spec, recipes in _shared(specs).items():
        listed = manifest.filter(pl.col("recipe").is_in(recipes))
        predicted = _of_items(_stored("prediction", run, spec), listed, on="item_digest", key=["item_digest"])
        measured = _of_items(_stored("vertebra", run, spec), predicted, on="item_digest", key=["item_digest", "level"])
        predictions.append(predicted)
        vertebrae.append(measured)
        rejects.append(_rejects(listed.join(predicted, on="item_digest", how="anti"), run, spec))
    tables = {"prediction": pl.concat(predictions), "vertebra": pl.concat(vertebrae), "reject": pl.concat(rejects)}
    found = [
        _summary(manifest, recipe.key, center=center.name, spec=specs[recipe.key], tables=tables)
        for recipe in study.recipes
        for center in study.centers
    ]
    for name, rows in tables.items():
        run.write(name, rows.sort(rows.columns))
    return found


def _of_items(stored: pl.DataFrame, listed: pl.DataFrame, *, on: str, key: list[str]) -> pl.DataFrame:
    # a worker killed between two parts leaves rows that a later shard wrote again, with the same values
    kept = stored.join(listed, on=on, how="semi").sort(stored.columns)
    return kept.unique(subset=key, keep="first", maintain_order=True)


def _rejects(unpredicted: pl.DataFrame, run: Run, spec: PredictorSpec) -> pl.DataFrame:
    """Rejects of the items without a prediction, one row per recipe and series; a lasting reason before a transient one."""
    stored = pl.concat([_stored("reject", run, spec), _stored("reject_transient", run, spec)])
    why = stored.sort("item_key", "is_transient", "reason", "detail").unique(
        subset="item_key", keep="first", maintain_order=True
    )
    why = why.select("stage", "level", "reason", "detail", "is_transient", item_digest="item_key")
    rows = unpredicted.select("center", "item_digest", item_key="series_key", scope="recipe").join(why, on="item_digest")
    return conform(rows.drop("item_digest"), "reject")


def _summary(
    manifest: pl.DataFrame, recipe: str, *, center: str, spec: PredictorSpec, tables: dict[str, pl.DataFrame]
) -> StageSummary:
    listed = manifest.filter((pl.col("recipe") == recipe) & (pl.col("center") == center))
    mine = (pl.col("model_digest") == spec.model_digest) & (pl.col("parameter_digest") == spec.parameter_digest)
    n_predicted = listed.join(tables["prediction"].filter(mine), on="item_digest").height
    rejects = tables["reject"].filter((pl.col("scope") == recipe) & (pl.col("center") == center))
    n_failed = rejects.filter(pl.col("is_transient")).height
    reasons = rejects["reason"].value_counts().sort("reason").iter_rows()
    return StageSummary(
        stage=f"infer {recipe}",
        center=center,
        level="series",
        requested=listed.height,
        done=n_predicted,
        excluded=rejects.height - n_failed,
        failed=n_failed,
        notes=tuple((str(reason), int(n)) for reason, n in reasons),
    ).check()
