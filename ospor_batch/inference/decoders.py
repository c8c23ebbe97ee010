"""Who prepares items ahead of the device: threads of this process, or processes beside it.

Codecs that hold the interpreter lock (JPEG 2000 and JPEG lossless through pydicom's plug-ins) leave nothing for the
computing thread to run in; for those a worker has decoder processes. One that dies takes its worker with it: the journal
says at what, and the driver does the rest as for every dead worker.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ospor_batch.errors import ItemRefused, OsporError
from ospor_batch.inference.allocator import keep_freed_memory
from ospor_batch.inference.device import failed
from ospor_batch.inference.items import WHENEVER, Item, fetch, read_pixels
from ospor_batch.inference.journal import Journal
from ospor_batch.inference.timing import Stopwatch
from ospor_batch.inference.watchdog import at_most
from ospor_batch.models.registry import predictor_here
from ospor_batch.models.spec import PredictorSpec

PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl(2)
Prepared = tuple[Any, dict[str, float]]
"""What the device takes, and the seconds that it took to make."""
Submit = Callable[[Item], "Future[Prepared]"]


def prepare(
    item: Item,
    spec: PredictorSpec,
    *,
    journal: Journal,
    item_seconds: float,
    n_threads: int = 1,
    turn: AbstractContextManager[object] = WHENEVER,
) -> Prepared:
    """Read, decode and prepare one item; ItemRefused says why it cannot be.

    n_threads: that decode its files. turn: entered while they are read, and again while they are decoded.
    """
    watch = Stopwatch()
    journal.begins([item.item_digest])
    try:
        with at_most(item_seconds, say_to=journal.fileno()):
            with turn, watch.on("read"):
                fetch(item)
            with watch.on("decode"):
                return _prepared(item, spec, n_threads, turn), watch.seconds
    finally:
        journal.rests([item.item_digest])


def _prepared(item: Item, spec: PredictorSpec, n_threads: int, turn: AbstractContextManager[object]) -> Any:
    try:
        return predictor_here(spec).prepare(read_pixels(item, spec, n_threads=n_threads, turn=turn))
    except OsporError:
        raise
    except MemoryError:
        # a larger worker may do it: another try next time
        raise ItemRefused("out_of_memory", "the worker's memory does not hold it", is_transient=True) from None
    # predictors are other people's too; one item must become a reject, not the end of the run
    except Exception as error:  # noqa: BLE001
        raise failed(error) from None


@contextmanager
def threads(n: int, spec: PredictorSpec, *, journal: Journal, item_seconds: float, n_items: int) -> Iterator[Submit]:
    """Prepare in so many threads; when fewer items than that may be held decoded, several threads decode the files of one."""
    n_items = min(n, n_items)
    pool = pool_of_single_threads(n_items, spec, name="decode")
    each = functools.partial(prepare, spec=spec, journal=journal, item_seconds=item_seconds, n_threads=n // n_items)
    try:
        yield lambda item: pool.submit(each, item)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def pool_of_single_threads(n: int, spec: PredictorSpec, *, name: str) -> ThreadPoolExecutor:
    """Threads in which what torch does is done in that thread alone; else every one of them would have a team of its own."""
    if spec.masks.source == "unet":
        importlib.import_module("torch")  # a segmentation would load it in a thread that has a team by then
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return ThreadPoolExecutor(n, thread_name_prefix=name)
    torch.get_num_threads()  # from here on the thread that asks keeps its own number
    return ThreadPoolExecutor(n, thread_name_prefix=name, initializer=torch.set_num_threads, initargs=(1,))


@contextmanager
def processes(n: int, spec: PredictorSpec, *, journal: Path, item_seconds: float) -> Iterator[Submit]:
    """Prepare in so many processes, which stay for the next shard; they open the model on the CPU for what it prepares with."""
    pool, on_cpu = _pool(n), replace(spec, device="cpu")
    given: list[Future[Prepared]] = []

    def submit(item: Item) -> Future[Prepared]:
        given.append(pool.submit(_prepare_here, item, on_cpu, journal=journal, item_seconds=item_seconds))
        return given[-1]

    try:
        yield submit
    finally:
        for future in given:
            future.cancel()


def _prepare_here(item: Item, spec: PredictorSpec, *, journal: Path, item_seconds: float) -> Prepared:
    with Journal(journal, is_new=False) as opened:
        return prepare(item, spec, journal=opened, item_seconds=item_seconds)


@functools.cache
def _pool(n: int) -> ProcessPoolExecutor:
    # spawned: a fork of a process that has threads and a CUDA context is no good
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n, mp_context=context, initializer=_follow, initargs=(os.getpid(),))


def _follow(parent: int) -> None:
    """End with the worker, also when it is killed; on systems without prctl, when it is next asked for work."""
    keep_freed_memory()
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PARENT_DEATH, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
