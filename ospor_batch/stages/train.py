"""Train what the study asks for: inputs cut on the executor, one fit a model, a sealed folder that inference reads.

A model is named by what it was learned from, so that a second run with the same people and parameters trains nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import WORKER_DIED, Executor
from ospor_batch.config import Study
from ospor_batch.contracts.table import schema_of
from ospor_batch.errors import ItemRefused, NothingToDoError, OsporError
from ospor_batch.inference.fitting import FitTask, fit_recipe, read_fit, write_cases
from ospor_batch.inference.parts import name_of
from ospor_batch.inference.preparing import PrepareTask, prepare_shard
from ospor_batch.models.bundle import bundle_digest, read_spec
from ospor_batch.models.prepared import PreparedStore, write_examples
from ospor_batch.models.registry import kind_of
from ospor_batch.models.spec import PREPROCESSING, PredictorSpec
from ospor_batch.models.trainable import TrainableRecipe
from ospor_batch.runs import Run
from ospor_batch.stages.located import distinct_items, located
from ospor_batch.stages.model_folder import model_row, write_model
from ospor_batch.stages.shards import SHARD_SECONDS, costs, cut_shards, halves, write_shards
from ospor_batch.stages.specs import declared_spec, models_folder, refuse_without_packages
from ospor_batch.stages.summary import Progress, StageSummary
from ospor_batch.stages.training_rows import PARTITIONS, Learners, learners
from ospor_batch.store import Store

TRAINING_VERSION = "4"  # raise it with every change in how cases are drawn or fitted that can move a weight
SHARDS_PER_WORKER = 4  # at least, so that a small study keeps every worker busy
REJECTS = "train_reject"  # stem of the run's rejects of training series


@dataclass(frozen=True)
class Training:
    """One recipe of the study under training."""

    of: Learners
    trains: TrainableRecipe
    spec: PredictorSpec

    @property
    def key(self) -> str:
        return self.of.recipe.key

    @property
    def is_on_gpu(self) -> bool:
        return self.spec.device == "cuda"


def train(study: Study, run: Run, *, store: Store, executor: Executor, progress: Progress | None = None) -> list[StageSummary]:
    """Train every recipe that is trained; write `model` and the rejects of training series.

    progress: told the series prepared and the fits done, and all of them. NothingToDoError when too few can be learned from.
    """
    refuse_without_packages()
    trainings = [_training(study, recipe.key, run=run, store=store) for recipe in study.recipes if recipe.is_trained]
    told = _Told(progress, total=sum(t.of.rows["item_digest"].n_unique() + 1 for t in trainings))
    rows, rejects, summaries = [], [], []
    for training in trainings:
        for partition in PARTITIONS:
            _prepare(training, partition, study=study, run=run, store=store, executor=executor, told=told)
        rejects.append(_rejects(training))
        summaries += _summaries(study, training)
    run.write("reject", pl.concat([pl.DataFrame(schema=schema_of("reject")), *rejects]).sort("scope", "item_key"), stem=REJECTS)
    for training in trainings:
        rows.append(_fitted(training, study, run=run, store=store, executor=executor))
        told.more(1)
    run.write("model", pl.DataFrame(rows, schema=schema_of("model")))
    return summaries


@dataclass
class _Told:
    """Counts finished work for the progress bar."""

    progress: Progress | None
    total: int
    done: int = 0

    def more(self, n: int) -> None:
        self.done += n
        if self.progress is not None:
            self.progress(self.done, self.total)


def _training(study: Study, key: str, *, run: Run, store: Store) -> Training:
    recipe = next(recipe for recipe in study.recipes if recipe.key == key)
    spec = declared_spec(study, recipe)
    kind = kind_of(recipe.name)
    if kind.trains is None:
        raise OsporError(f"recipe {key}: {recipe.name} has no training")
    if study.compute.gpu is not None and kind.wants_gpu:
        spec = replace(spec, device="cuda")
    found = learners(study, recipe, run=run, store=store, of=kind.trains, parameters=dict(spec.parameters))
    return Training(found, kind.trains, spec)


def _prepare(
    training: Training, partition: str, *, study: Study, run: Run, store: Store, executor: Executor, told: _Told
) -> None:
    """Cut the inputs of a partition that are not cut yet, and note who was refused."""
    folder = _prepared_folder(training, partition, store=store)
    held = PreparedStore(folder)
    held.forget_transient()
    wanted = training.of.of(partition)
    finished = held.items | held.refusals().keys()
    todo = wanted.filter(~pl.col("item_digest").is_in(list(finished)))
    told.more(wanted.height - todo.height)
    if todo.height:
        files = located(distinct_items(todo), study, store=store, run=run)
        tasks = _Preparing(training, partition, folder, private=run.private.absolute() / "train")
        try:
            items = costs(files)
            even = float(items["seconds"].sum()) / (SHARDS_PER_WORKER * executor.n_workers)
            size = float(study.compute.cpu.shard_megabytes)
            shards = cut_shards(items, megabytes=size, seconds=min(SHARD_SECONDS, even))
            tasks.all(shards, files, executor=executor, told=told)
        finally:
            shutil.rmtree(tasks.private, ignore_errors=True)  # shard files hold paths
    refused = PreparedStore(folder).refusals()
    training.of.refused |= {item: refused[item] for item in wanted["item_digest"] if item in refused}


@dataclass(frozen=True)
class _Preparing:
    """The shards of one partition on the executor."""

    training: Training
    partition: str
    folder: Path
    private: Path

    def all(self, shards: list[list[str]], files: pl.DataFrame, *, executor: Executor, told: _Told) -> None:
        """Prepare shards; one whose worker died is halved until the series that did it stands alone and is refused."""
        suspects: list[str] = []
        while shards:
            died = self._round(shards, files, executor=executor, told=told)
            suspects += [shard[0] for shard in died if len(shard) == 1]
            shards = [half for shard in died if len(shard) > 1 for half in halves(shard)]
        for suspect in sorted(suspects):
            if self._round([[suspect]], files, executor=executor, told=told):
                refusal = ItemRefused(WORKER_DIED, "the worker process died twice on this series alone")
                write_examples({}, {suspect: refusal}, folder=self.folder, shard=name_of([suspect]))

    def _round(self, shards: list[list[str]], files: pl.DataFrame, *, executor: Executor, told: _Told) -> list[list[str]]:
        write_shards(shards, files, folder=self.private)
        is_training = self.partition == "train"
        tasks = {}
        for shard in shards:
            name = name_of(shard)
            task = PrepareTask(name, self.private / f"{name}.parquet", self.folder, self.training.spec, is_training)
            tasks[task] = shard
        died = []
        for outcome in executor.map(prepare_shard, list(tasks)):
            if outcome.error == WORKER_DIED:
                died.append(tasks[outcome.item])
            elif outcome.error is not None or outcome.value is None:
                raise OsporError(
                    f"train: shard {outcome.item.shard} ended with {outcome.error} on its worker: a fault of this program; "
                    'run it with [compute.cpu] cluster = "in_line" to see where'
                )
            else:
                told.more(outcome.value.n_items)
        return sorted(died)


def _prepared_folder(training: Training, partition: str, *, store: Store) -> Path:
    """Keyed by all that can change an input: recipes that differ in their schedule alone share it."""
    parameters = dict(training.spec.parameters)
    named = {
        "recipe": training.trains.name,
        "version": training.trains.version,
        "preprocessing": PREPROCESSING,
        "parameters": {name: parameters[name] for name in sorted(training.trains.preparing)},
        "masks": _masks(training),
        "is_training": partition == "train",
    }
    return store.private.absolute() / "prepared" / _digest(named)


def _masks(training: Training) -> dict[str, object]:
    return training.spec.masks.identity if training.trains.reads_masks else {}


def training_digest(training: Training, *, seed: int) -> str:
    """SHA-256 (first 16 digits) over everything that the weights follow from."""
    parameters = {k: v for k, v in training.spec.parameters if k not in training.trains.reading}
    cases = {
        partition: [[c.item_digest, [repr(t) for t in c.targets], dict(c.facts)] for c in training.of.cases(partition)]
        for partition in PARTITIONS
    }
    return _digest(
        {
            "recipe": training.trains.name, "recipe_version": training.trains.version, "training": TRAINING_VERSION,
            "preprocessing": PREPROCESSING, "parameters": parameters, "masks": _masks(training), "seed": seed,
            "device": training.spec.device, "cases": cases,
        }
    )  # fmt: skip


def _digest(of: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]


def _fitted(training: Training, study: Study, *, run: Run, store: Store, executor: Executor) -> dict[str, object]:
    """Fit a recipe unless its model stands, and say what it was trained to."""
    _refuse_too_few(training)
    digest = training_digest(training, seed=study.study.seed)
    folder = models_folder(run) / digest
    if not folder.is_dir():
        private = store.private.absolute() / "training" / digest
        write_cases(private, train=training.of.cases("train"), tuning=training.of.cases("tuning"))
        task = FitTask(
            private,
            _prepared_folder(training, "train", store=store),
            _prepared_folder(training, "tuning", store=store),
            training.spec,
            study.study.seed,
        )
        with _executor_for(training, study, given=executor) as opened:
            _fit(task, training.key, executor=opened)
        fit = read_fit(private)
        write_model(folder, fit=fit, learners=training.of, trains=training.trains, spec=training.spec, study=study)
        shutil.rmtree(private, ignore_errors=True)  # checkpoints
    return model_row(
        training.of, spec=training.spec, training_digest=digest, model_digest=bundle_digest(folder), said=read_spec(folder)
    )


def _fit(task: FitTask, key: str, *, executor: Executor) -> None:
    for outcome in executor.map(fit_recipe, [task]):
        if outcome.error == WORKER_DIED:
            raise OsporError(
                f"train {key}: its worker died, for want of memory most likely; run again to go on from the last epoch, "
                "with a smaller batch_size if it happens again"
            )
        if outcome.error is not None:
            raise OsporError(
                f"train {key}: ended with {outcome.error} on its worker: a fault of this program; "
                'run it with [compute.cpu] cluster = "in_line" to see where'
            )


@contextlib.contextmanager
def _executor_for(training: Training, study: Study, *, given: Executor) -> Iterator[Executor]:
    if training.is_on_gpu and study.compute.gpu is not None:
        with open_executor(study.compute.gpu) as opened:
            yield opened
    else:
        yield given


def _refuse_too_few(training: Training) -> None:
    """NothingToDoError when there are too few cases, or too few of a class, to learn from."""
    parameters, cases = dict(training.spec.parameters), training.of.cases("train")
    reasons = Counter(refusal.reason for refusal in training.of.refused.values())
    said = ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items()))
    why = f" ({len(training.of.refused)} refused: {said})" if said else ""
    least = int(str(parameters["minimum_cases"]))
    if len(cases) < least:
        raise NothingToDoError(
            f"train {training.key}: {len(cases)} labelled series of the train partition can be learned from{why}, expected at "
            "least recipes.parameters.minimum_cases = "
            f"{least}; widen match or criteria, raise split.train, or load a model with recipes.model"
        )
    few = int(str(parameters["minimum_events"]))
    for at, target in enumerate(training.of.targets):
        if target.kind == "binary":
            counts = [sum(case.targets[at] == value for case in cases) for value in (0.0, 1.0)]
            if min(counts) < few:
                raise NothingToDoError(
                    f"train {training.key}: {counts[1]} of {sum(counts)} train series have {target.column}{why}; a classifier "
                    f"needs at least recipes.parameters.minimum_events = {few} with it and {few} without: export labels of "
                    "both, widen match or criteria, raise split.train, or load a model with recipes.model"
                )


def _rejects(training: Training) -> pl.DataFrame:
    refused = training.of.refused
    rows = [
        {
            "center": row["center"], "stage": "train", "level": "series", "item_key": row["series_key"], "scope": training.key,
            "reason": (why := refused[row["item_digest"]]).reason, "detail": why.detail, "is_transient": why.is_transient,
        }
        for row in training.of.rows.iter_rows(named=True)
        if row["item_digest"] in refused
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=schema_of("reject")).unique(subset=["center", "item_key", "scope"], maintain_order=True)


def _summaries(study: Study, training: Training) -> list[StageSummary]:
    """The ledger of a recipe's training series at each center."""
    found = []
    for center in study.centers:
        rows = training.of.rows.filter(pl.col("center") == center.name)
        refused = [training.of.refused.get(item) for item in rows["item_digest"]]
        n_failed = sum(one is not None and one.is_transient for one in refused)
        n_excluded = sum(one is not None for one in refused) - n_failed
        done = rows.height - n_excluded - n_failed
        notes = tuple((p, rows.filter(pl.col("partition") == p).height) for p in PARTITIONS)
        found.append(
            StageSummary(f"train {training.key}", center.name, "series", rows.height, done, n_excluded, n_failed, notes).check()
        )
    return found
