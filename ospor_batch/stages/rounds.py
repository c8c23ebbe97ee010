"""Predict shards on the executor whatever becomes of its workers: what killed one is found and stands alone as a reject.

Only what the journal of a dead worker names is under suspicion: such a series gets a shard of its own; when that dies too,
it has the cluster to itself once more; then it is refused. Everything else of the shard goes on as one shard.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ospor_batch.compute.executor import WORKER_DIED, Executor
from ospor_batch.errors import ItemRefused, OsporError
from ospor_batch.inference.device import FAILED
from ospor_batch.inference.journal import Left, read_journal
from ospor_batch.inference.parts import items_of_part, name_of, reject_row, write_parts
from ospor_batch.inference.shard import Limits, ShardReceipt, ShardTask, predict_shard
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.runs import Run
from ospor_batch.stages.live import Live
from ospor_batch.stages.shards import halves, without, write_shards

TIMED_OUT = "timed_out"
MOST_FAILURES = 200  # of a predictor that never answered: its code is at fault, or this is no archive for it


@dataclass
class LeftBehind:
    """What the journals of a killed run name; alone: those that were under suspicion already and had a shard of their own."""

    working: set[str] = field(default_factory=set)
    alone: dict[str, Left] = field(default_factory=dict)


def shards_folder(run: Run, spec: PredictorSpec) -> Path:
    """Where shard files, journals and receipts of a run stand while it works; private, since they hold paths."""
    return run.private.absolute() / "shards" / spec.key


def left_behind(folder: Path) -> LeftBehind:
    """Read what a killed run left, and remove it."""
    found = LeftBehind()
    for journal in sorted(folder.glob("*.journal")):
        left = read_journal(journal)
        for item in left.working if left else ():
            found.working.add(item)
            if left is not None and journal.stem == name_of([item]) and _mark(folder, item).exists():
                found.alone[item] = left
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _mark(folder: Path, item: str) -> Path:
    return folder / f"{name_of([item])}.suspect"


@dataclass
class Rounds:
    """Predicts the items of one spec; files: their rows of the locator, in the order in which shards are cut."""

    spec: PredictorSpec
    run: Run
    files: pl.DataFrame
    executor: Executor
    limits: Limits
    live: Live
    left: LeftBehind
    _alone: set[str] = field(default_factory=set)  # died in a shard of their own; once more with the cluster to themselves
    _refused: set[str] = field(default_factory=set)  # before anything was tried
    _deaths: Counter[str] = field(default_factory=Counter)  # of workers that worked on an item
    _never_begun: Counter[str] = field(default_factory=Counter)
    _n_failures: int = 0  # of the predictor, before its first answer

    def __post_init__(self) -> None:
        self.folder = shards_folder(self.run, self.spec)

    def predict(self, shards: Sequence[list[str]]) -> None:
        """Predict every item of the shards, or refuse it; what a killed run was at is looked at first."""
        suspects = self._suspects_of_killed_run({item for shard in shards for item in shard})
        following = [[item] for item in sorted(suspects)] + without(shards, suspects | self._refused)
        try:
            while following:
                following = [part for shard in self._round(following) for part in self._what_is_left(shard)]
            for item in sorted(self._alone):
                if self._round([[item]]):
                    self._refuse(item, read_journal(self._task([item]).journal))
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)  # it holds paths
            with contextlib.suppress(OSError):  # another spec's stand beside it
                self.folder.parent.rmdir()

    def _task(self, shard: Sequence[str]) -> ShardTask:
        return ShardTask(name_of(shard), self.folder, self.run.predictions.absolute(), self.spec, self.limits)

    def _round(self, shards: Sequence[list[str]]) -> list[list[str]]:
        """Predict shards; those whose worker died come back."""
        write_shards(shards, self.files, folder=self.folder)
        tasks = {self._task(shard): shard for shard in shards}
        for task in tasks:
            for stale in (task.journal, task.receipt):
                stale.unlink(missing_ok=True)
        died = []
        for outcome in self.executor.map(predict_shard, list(tasks)):
            if outcome.error == WORKER_DIED:
                died.append(tasks[outcome.item])
                self.live.n_deaths += 1
            elif outcome.error is not None or outcome.value is None:
                raise OsporError(
                    f"infer: shard {outcome.item.shard} ended with {outcome.error} on its worker: a fault of this program; "
                    'run it with [compute.cpu] cluster = "in_line" to see where'
                )
            else:
                self.live.received(outcome.value)
                outcome.item.source.unlink(missing_ok=True)
                self._refuse_systematic_failure(outcome.value)
        return sorted(died)

    def _refuse_systematic_failure(self, receipt: ShardReceipt) -> None:
        """OsporError before a whole cohort is tried in vain; a few series that a predictor cannot take are rejects alone."""
        self._n_failures += receipt.reasons.get(FAILED, 0)
        if self._n_failures > MOST_FAILURES and not any((self.run.predictions / self.spec.key).glob("prediction-*.parquet")):
            raise OsporError(f"predictor {self.spec.predictor} fails on every series: {receipt.failure}")

    def _what_is_left(self, shard: list[str]) -> list[list[str]]:
        """The shards that do what a dead one left undone."""
        left = read_journal(self._task(shard).journal)
        if left is None:
            # it waited on the worker that died of another; if that happens again, perhaps not of another
            self._never_begun[name_of(shard)] += 1
            return [shard] if self._never_begun[name_of(shard)] < 2 else self._divided(shard)
        done = self._durable(shard, left)
        self.live.more(len(done))
        undone = [item for item in shard if item not in done]
        suspects = [item for item in undone if item in left.working]
        if not suspects:
            return [undone] if done and undone else self._divided(undone)
        self._deaths.update(suspects)
        if len(shard) == 1 and self._deaths[shard[0]] > 1:
            return self._after_deaths(shard[0], left)
        rest = [item for item in undone if item not in left.working]
        return [*([item] for item in suspects), *([rest] if rest else [])]

    def _durable(self, shard: list[str], left: Left) -> frozenset[str]:
        """What the journal says is kept, and what became so before it could say it: a decoder that hangs may hold the
        interpreter lock from then until the process ends."""
        if left.writing is None:
            return left.kept
        return left.kept | (items_of_part(left.writing, store=self._task(shard).store) & set(shard))

    def _divided(self, shard: list[str]) -> list[list[str]]:
        if len(shard) == 1:
            self._alone.add(shard[0])
            return []
        return halves(shard)

    def _after_deaths(self, item: str, left: Left) -> list[list[str]]:
        if left.is_timed_out:  # its second time: nothing that another worker could do better
            self._refuse(item, left)
        else:
            self._alone.add(item)
        return []

    def _refuse(self, item: str, left: Left | None) -> None:
        center = self.files.filter(pl.col("item_digest") == item)["center"][0]
        if left is not None and left.is_timed_out:
            refusal = ItemRefused(TIMED_OUT, f"took longer than {self.limits.item_seconds:g} s, twice")
        else:
            refusal = ItemRefused(
                WORKER_DIED, "the process died each time it worked on this series alone: it crashed, or went over its memory"
            )
        row = reject_row(item, center, spec=self.spec, refusal=refusal)
        write_parts(
            {"reject": [row]}, name=name_of([item]), store=self.run.predictions.absolute() / self.spec.key, spec=self.spec
        )
        self.live.rejects[refusal.reason] += 1
        self.live.more(1)

    def _suspects_of_killed_run(self, items: set[str]) -> set[str]:
        """What a killed run was working on; in line, where a series takes the run with it, one that was alone is refused."""
        suspects = items & self.left.working
        if not self.executor.is_expendable:
            for item in sorted(suspects & set(self.left.alone)):
                self._refuse(item, self.left.alone[item])
                self._refused.add(item)
        for item in suspects - self._refused:
            self.folder.mkdir(parents=True, exist_ok=True)
            _mark(self.folder, item).touch()
        return suspects - self._refused
