"""Predict what is in the manifest and not yet in the prediction store; then draw the run's tables from the store."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import Executor
from ospor_batch.config import Compute, Study
from ospor_batch.contracts.table import conform, empty
from ospor_batch.inference.shard import Limits
from ospor_batch.models.registry import kind_of
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.runs import Run
from ospor_batch.stages.live import PROGRESS, Live
from ospor_batch.stages.located import distinct_items, located
from ospor_batch.stages.prediction_store import clear, finished, forget, merge, stored
from ospor_batch.stages.rounds import Rounds, left_behind, shards_folder
from ospor_batch.stages.shards import MEGABYTE, SHARD_SECONDS, costs, cut_shards
from ospor_batch.stages.specs import specs_of
from ospor_batch.stages.summary import Progress, StageSummary
from ospor_batch.store import Store
from ospor_batch.store.buckets import bucket_groups, number_of

SHARDS_PER_WORKER = 4  # at least, so that a small study keeps every worker busy and loses little when one dies
DECODING = 4  # cores of a worker on the CPU to one that decodes; the others compute
LEAST_LANES = 2  # of a worker with one core: one computes while another waits for a disk
MOST_FILES = 2_000_000  # rows of the locator held at once; about 400 bytes each


def infer(
    study: Study, run: Run, *, store: Store, executor: Executor, progress: Progress | None = None, recompute: bool = False
) -> list[StageSummary]:
    """Predict the manifest on the executor and write prediction, vertebra and reject of the run.

    progress: told the items finished, earlier runs included, and all items. recompute: forget what is stored of these
    items first. LedgerError when a row of the manifest is not exactly one of prediction and reject.
    """
    manifest = run.read("manifest")
    specs = specs_of(study, run)
    shared = _shared(specs)
    if recompute:
        for spec, recipes in shared.items():
            forget(run, spec, items=manifest.filter(pl.col("recipe").is_in(recipes))["item_digest"])
    work = [_work(manifest, run, spec=spec, recipes=recipes) for spec, recipes in shared.items()]
    n_finished = sum(w.wanted.height - w.todo.height for w in work)
    live = Live(run.private / PROGRESS, sum(w.wanted.height for w in work), n_finished, progress=progress)
    with live.under_way():
        for part in work:
            if part.todo.height:
                _compute(part, study, run=run, store=store, executor=executor, live=live)
                merge(run, part.spec)
    return _assemble(study, run, manifest=manifest, specs=specs, said=(live.said(),) if live.n_computed else ())


@dataclass(frozen=True)
class _Work:
    """What one spec has to do: every item it is wanted for, and those not finished."""

    spec: PredictorSpec
    wanted: pl.DataFrame
    todo: pl.DataFrame


def _shared(specs: dict[str, PredictorSpec]) -> dict[PredictorSpec, list[str]]:
    """Recipes by the spec they share."""
    by_spec: dict[PredictorSpec, list[str]] = {}
    for recipe, spec in sorted(specs.items()):
        by_spec.setdefault(spec, []).append(recipe)
    return by_spec


@contextlib.contextmanager
def _executor_for(spec: PredictorSpec, study: Study, *, given: Executor) -> Iterator[tuple[Executor, Compute, PredictorSpec]]:
    """The GPU cluster of the study for a predictor that wants one, and its spec on a GPU; else the given executor."""
    if study.compute.gpu is not None and kind_of(spec.predictor).wants_gpu:
        with open_executor(study.compute.gpu) as opened:
            yield opened, study.compute.gpu, dataclasses.replace(spec, device="cuda")
    else:
        yield given, study.compute.cpu, spec


def limits_of(compute: Compute, *, n_workers: int, is_gpu: bool, is_expendable: bool) -> Limits:
    """What a worker may take: its cores feed its GPU, or take series from file to answer, one each; with a number of decoders
    given, they are shared between those that decode and those that compute."""
    n_cores = 1  # of a worker at an address, whose machine is not known here
    if compute.slurm is not None:
        n_cores = compute.slurm.cores
    elif compute.cluster in {"in_line", "local", "cuda"}:
        n_cores = max(1, (os.cpu_count() or 1) // n_workers)
    n_threads = n_cores if is_gpu else max(1, n_cores // DECODING)
    n_ahead = compute.decode_processes or compute.decode_threads or n_threads
    is_shared = is_gpu or compute.decode_threads is not None or compute.decode_processes is not None
    return Limits(
        n_lanes=0 if is_shared else max(LEAST_LANES, n_cores),
        n_threads=compute.decode_threads or n_threads,
        n_processes=compute.decode_processes or 0,
        n_computing=None if is_gpu else max(1, n_cores - n_ahead),
        n_decoded=compute.decoded_items,
        item_seconds=compute.item_seconds,
        out_of_memory=compute.out_of_memory,
        is_expendable=is_expendable,
    )


def _work(manifest: pl.DataFrame, run: Run, *, spec: PredictorSpec, recipes: Sequence[str]) -> _Work:
    wanted = distinct_items(manifest.filter(pl.col("recipe").is_in(recipes)))
    clear(run, spec)
    return _Work(spec, wanted, wanted.join(finished(run, spec), on="item_digest", how="anti", maintain_order="left"))


def _compute(part: _Work, study: Study, *, run: Run, store: Store, executor: Executor, live: Live) -> None:
    """Predict what a spec has to do, portion by portion."""
    with _executor_for(part.spec, study, given=executor) as (opened, compute, spec):
        left = left_behind(shards_folder(run, spec))
        is_gpu, is_expendable = spec.device == "cuda", opened.is_expendable
        limits = limits_of(compute, n_workers=opened.n_workers, is_gpu=is_gpu, is_expendable=is_expendable)
        live.present = lambda: opened.n_present
        for some in _portions(part.todo, store):
            rounds = Rounds(spec, run, located(some, study, store=store, run=run), opened, limits, live, left)
            _predict_all(rounds, shard_megabytes=compute.shard_megabytes)
        live.present = None  # before the cluster closes


def _portions(todo: pl.DataFrame, store: Store) -> list[pl.DataFrame]:
    """The items in portions whose files this process can hold; whole buckets of the locator, one portion for most studies."""
    portions: list[list[pl.DataFrame]] = []
    filled = 0
    for center in todo["center"].unique().sort():
        sizes = store.sizes("locator", center=center)
        number = number_of(pl.col("series_key"), "locator")
        for group in bucket_groups(sizes, most=MOST_FILES):
            size = sum(sizes[place] for place in group)
            if not portions or filled + size > MOST_FILES:
                portions.append([])
                filled = 0
            portions[-1].append(todo.filter((pl.col("center") == center) & number.is_in(list(group))))
            filled += size
    return [some for parts in portions if (some := pl.concat(parts)).height]


def _predict_all(rounds: Rounds, *, shard_megabytes: float) -> None:
    live, executor, items = rounds.live, rounds.executor, costs(rounds.files)
    live.link, live.n_workers = executor.link, executor.n_workers
    n_shards = SHARDS_PER_WORKER * executor.n_workers
    megabytes = min(shard_megabytes, int(items["size_bytes"].sum()) / (n_shards * MEGABYTE))
    seconds = min(SHARD_SECONDS, float(items["seconds"].sum()) / n_shards)
    rounds.predict(cut_shards(items, megabytes=megabytes, seconds=seconds))


def _assemble(
    study: Study, run: Run, *, manifest: pl.DataFrame, specs: dict[str, PredictorSpec], said: tuple[str, ...]
) -> list[StageSummary]:
    """Write the run's tables from the prediction store and close the ledger of every recipe and center."""
    predictions, vertebrae, rejects = [empty("prediction")], [empty("vertebra")], [empty("reject")]
    for spec, recipes in _shared(specs).items():
        listed = manifest.filter(pl.col("recipe").is_in(recipes))
        predicted = _of_items(stored("prediction", run, spec), listed, on="item_digest", key=["item_digest"])
        measured = _of_items(stored("vertebra", run, spec), predicted, on="item_digest", key=["item_digest", "level"])
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
    return [*found[:-1], dataclasses.replace(found[-1], remarks=said)]


def _of_items(stored: pl.DataFrame, listed: pl.DataFrame, *, on: str, key: list[str]) -> pl.DataFrame:
    # a worker killed between two parts leaves rows that a later shard wrote again, with the same values
    kept = stored.join(listed, on=on, how="semi").sort(stored.columns)
    return kept.unique(subset=key, keep="first", maintain_order=True)


def _rejects(unpredicted: pl.DataFrame, run: Run, spec: PredictorSpec) -> pl.DataFrame:
    """Rejects of the items without a prediction, one row per recipe and series; a lasting reason before a transient one."""
    refused = pl.concat([stored("reject", run, spec), stored("reject_transient", run, spec)])
    why = refused.sort("item_key", "is_transient", "reason", "detail").unique(
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
