"""Predict one shard on a worker: read names, leave whole parts behind, answer with counts.

A task holds the shard's name, two folders and the frozen spec; paths stand in the private shard file alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ospor_batch.contracts import contract
from ospor_batch.errors import ItemRefused, LedgerError, OsporError
from ospor_batch.inference.ahead import in_batches
from ospor_batch.inference.allocator import keep_freed_memory
from ospor_batch.inference.decoders import Prepared, Submit, processes, threads
from ospor_batch.inference.device import FAILED, Answer, Device, DeviceLostError, OutOfMemory
from ospor_batch.inference.items import Item, read_items
from ospor_batch.inference.journal import Journal
from ospor_batch.inference.lanes import can_share, side_by_side
from ospor_batch.inference.parts import PARTS, name_of, prediction_row, reject_row, vertebra_rows, write_parts
from ospor_batch.inference.timing import Stopwatch
from ospor_batch.inference.watchdog import at_most
from ospor_batch.models.spec import Prediction, PredictorSpec

COMMIT_SECONDS = 20.0  # after which finished items become durable though their shard goes on
BROKEN_CONTEXT = 70  # exit status, EX_SOFTWARE of sysexits.h


@dataclass(frozen=True)
class Limits:
    """What a worker may take.

    n_lanes: threads that each read, decode and compute series on a CPU, where the predictor can (lanes.py); 0 for none.
    Else n_threads: that read and decode ahead. n_processes: that do so in their stead; 0 for none. n_computing: threads of a
    network on the CPU; null for as many as torch has. n_decoded: most series held decoded; null for a batch on the device
    and one behind it, or one a lane. item_seconds: after which the process is ended. is_expendable: whether another process
    takes its place.
    """

    n_lanes: int = 0
    n_threads: int = 1
    n_processes: int = 0
    n_computing: int | None = None
    n_decoded: int | None = None
    item_seconds: float = 600.0
    out_of_memory: OutOfMemory = "cpu"
    commit_seconds: float = COMMIT_SECONDS
    is_expendable: bool = False


@dataclass(frozen=True)
class ShardTask:
    """What is sent to a worker.

    shards: private folder of the shard files. predictions: folder of the prediction store.
    """

    shard: str
    shards: Path
    predictions: Path
    spec: PredictorSpec
    limits: Limits = Limits()

    @property
    def source(self) -> Path:
        return self.shards / f"{self.shard}.parquet"

    @property
    def journal(self) -> Path:
        return self.shards / f"{self.shard}.journal"

    @property
    def receipt(self) -> Path:
        """What was answered: a worker that dies with its answer makes Dask ask another one, which shall not compute again."""
        return self.shards / f"{self.shard}.receipt"

    @property
    def store(self) -> Path:
        """Where the parts of this model and these parameters lie."""
        return self.predictions / self.spec.key


@dataclass(frozen=True)
class ShardReceipt:
    """What a worker answers once its parts are durable.

    reasons: rejects by reason, transient ones among them. seconds: by step (timing.STEPS). failure: of the predictor on the
    first series that it failed on, as that reject's detail has it; empty where it failed on none.
    """

    shard: str
    n_items: int
    n_predicted: int
    n_rejected: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""

    def counts(self) -> dict[str, float]:
        """Counters of the worker."""
        return {
            "shards": 1,
            "series:predicted": self.n_predicted,
            **{f"series:{reason}": n for reason, n in self.reasons.items()},
            **{f"seconds:{step}": seconds for step, seconds in self.seconds.items()},
        }


def predict_shard(task: ShardTask) -> ShardReceipt:
    """Predict every item of a shard and write its parts; each item ends as a prediction or as a reject."""
    if task.receipt.exists():
        return ShardReceipt(**json.loads(task.receipt.read_text()))
    keep_freed_memory()
    items, watch = read_items(task.source), Stopwatch()
    device = Device(task.spec, out_of_memory=task.limits.out_of_memory, watch=watch)
    with Journal(task.journal) as journal, _computing_threads(task.limits.n_computing):
        kept = _Kept(task, journal, watch)
        try:
            for item, answer in _answers(items, task, device=device, journal=journal, watch=watch):
                kept.add(item, answer)
        except (DeviceLostError, BrokenProcessPool):
            if task.limits.is_expendable:
                os._exit(BROKEN_CONTEXT)  # the journal says what it worked on; another process takes the rest
            raise OsporError("the device is lost to this process; run again: finished work is kept") from None
        kept.flush()
    reasons = dict(sorted(kept.reasons.items()))
    receipt = ShardReceipt(task.shard, len(items), kept.n_predicted, kept.reasons.total(), reasons, watch.seconds, kept.failure)
    if receipt.n_predicted + receipt.n_rejected != receipt.n_items:
        raise LedgerError(f"shard {task.shard}: {receipt.n_items} items, but {receipt.n_predicted} + {receipt.n_rejected}")
    _leave(receipt, task.receipt)
    return receipt


@contextlib.contextmanager
def _computing_threads(n: int | None) -> Iterator[None]:
    """Let torch compute in so many threads, so that those that decode have cores of their own: a team that waits for one of
    its threads burns the others' time."""
    torch: Any = sys.modules.get("torch")  # a predictor without a network has not imported it
    if n is None or torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _leave(receipt: ShardReceipt, target: Path) -> None:
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    # without it the shard may be computed twice, which is no reason to fail on a full disk
    with contextlib.suppress(OSError):
        unfinished.write_text(json.dumps(asdict(receipt)))
        unfinished.replace(target)


def _answers(
    items: Sequence[Item], task: ShardTask, *, device: Device, journal: Journal, watch: Stopwatch
) -> Iterator[tuple[Item, Answer]]:
    """Every item with its verdict: side by side on a CPU, else decoded ahead of a device that works in this thread."""
    limits = task.limits
    if limits.n_lanes and can_share(device):
        n, seconds = min(limits.n_lanes, limits.n_decoded or limits.n_lanes), limits.item_seconds
        yield from side_by_side(
            items, device, n_lanes=n, journal=journal, item_seconds=seconds, watch=watch, n_reading=limits.n_threads
        )
        return

    def predict(batch: list[tuple[Item, Any]]) -> list[Answer]:
        names = [item.item_digest for item, _ in batch]
        journal.begins(names)
        with at_most(limits.item_seconds, say_to=journal.fileno()):
            answers = device.predict([prepared for _, prepared in batch])
        journal.rests(names)
        return answers

    def waiting_for(result: Callable[[], Prepared]) -> Any:
        with watch.on("starved"):
            prepared, seconds = result()
        watch.add(seconds)
        return prepared

    n_decoded = limits.n_decoded or 2 * max(device.batch_items, limits.n_processes or limits.n_threads)
    with _decoders(task, journal, n_decoded) as submit:
        yield from in_batches(
            items,
            submit=submit,
            predict=predict,
            waiting_for=waiting_for,
            batch_items=lambda: device.batch_items,
            n_decoded=n_decoded,
        )


def _decoders(task: ShardTask, journal: Journal, n_decoded: int) -> AbstractContextManager[Submit]:
    limits, spec, seconds = task.limits, task.spec, task.limits.item_seconds
    if limits.n_processes and limits.is_expendable:
        return processes(limits.n_processes, spec, journal=task.journal, item_seconds=seconds)
    return threads(limits.n_threads, spec, journal=journal, item_seconds=seconds, n_items=n_decoded)


class _Kept:
    """The rows of a shard; they become durable every so often, so that a worker that dies takes little with it."""

    def __init__(self, task: ShardTask, journal: Journal, watch: Stopwatch) -> None:
        self.task, self.journal, self.watch = task, journal, watch
        self.n_predicted = 0
        self.reasons: Counter[str] = Counter()
        self.failure = ""
        self._begin()

    def _begin(self) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in PARTS}
        self._items: list[str] = []
        self._since = time.monotonic()

    def add(self, item: Item, answer: Answer) -> None:
        spec = self.task.spec
        verdict = answer if isinstance(answer, ItemRefused) else _faulty(answer[0])
        if verdict is not None:
            part = "reject_transient" if verdict.is_transient else "reject"
            self._rows[part].append(reject_row(item.item_digest, item.center, spec=spec, refusal=verdict))
            self.reasons[verdict.reason] += 1
            if verdict.reason == FAILED:
                self.failure = self.failure or verdict.detail
        else:
            assert not isinstance(answer, ItemRefused)
            prediction, device = answer
            self._rows["prediction"].append(prediction_row(item, prediction, spec=spec, device=device))
            self._rows["vertebra"].extend(vertebra_rows(item, prediction, spec=spec))
            self.n_predicted += 1
        self._items.append(item.item_digest)
        if time.monotonic() - self._since > self.task.limits.commit_seconds:
            self.flush()

    def flush(self) -> None:
        """Make durable what is finished."""
        if self._items:
            name = name_of(self._items)
            self.journal.writes(name)
            with self.watch.on("write"):
                write_parts(self._rows, name=name, store=self.task.store, spec=self.task.spec)
            self.journal.keeps(self._items)
        self._begin()


def _faulty(prediction: Prediction) -> ItemRefused | None:
    """Why a prediction cannot be right; null when nothing speaks against it."""
    if not (math.isfinite(prediction.score) and math.isfinite(prediction.value)):
        return ItemRefused("non_finite", "score or value is no finite number")
    bounds = dict(contract("vertebra").field("mean_hu").constraints)
    for region in prediction.regions:
        if not bounds["minimum"] <= region.mean_hu <= bounds["maximum"]:
            return ItemRefused("impossible_hu", f"{region.level}: mean {region.mean_hu:.0f} HU is no HU of a body")
    return None
