"""Make a worker process ready: threads, memory, CUDA settings, silent libraries, counters at Dask's own metrics endpoint."""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

from distributed import WorkerPlugin

from ospor_batch.compute import counting

# libraries that quote header values, and so names and dates, in what they log
TALKATIVE = ("pydicom", "pylibjpeg", "nibabel", "nibabel.global", "py.warnings", "PIL", "monai")
# read by torch when it is imported, which a worker does at its first shard
CUDA_SETTINGS = {
    "CUDA_MODULE_LOADING": "LAZY",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",  # less fragmentation when batch sizes differ
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products, as torch's documentation asks
}


class Silenced(logging.Handler):
    """Counts what libraries log by logger and level; the text is never kept, since it may quote a header."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[str, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.counts[record.name, record.levelname] += 1
        counting.add({f"log_records:{record.levelname.lower()}": 1})


class WorkerSetup(WorkerPlugin):  # type: ignore[misc]
    """Runs in every worker process before its first task, in one that replaces a dead one too.

    n_threads: of each numerical library, so that workers times threads is the machine's cores. Models stay loaded in
    their process by themselves (models.registry.predictor_here).
    """

    name = "ospor-setup"

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads

    def setup(self, worker: Any) -> None:
        for variable, value in CUDA_SETTINGS.items():
            os.environ.setdefault(variable, value)
        os.environ.setdefault("OMP_NUM_THREADS", str(self.n_threads))  # where no nanny of ours set it before the start
        # Dask gives a worker nothing to do while it holds 0.8 of its memory, and there is no result that it could spill: one
        # that keeps memory to use it again would wait for ever. At 0.95 its nanny starts it anew, as after any other death
        worker.memory_manager.memory_pause_fraction = worker.memory_manager.memory_spill_fraction = False
        logging.captureWarnings(capture=True)
        warnings.simplefilter("default")
        worker.ospor_silenced = silenced = Silenced()
        for name in TALKATIVE:
            logger = logging.getLogger(name)
            logger.handlers = [silenced]
            logger.propagate = False
        counting.publish()


def log_counts(dask_worker: Any) -> Mapping[str, int]:
    """What the libraries of a worker logged so far, by logger and level; sent with Client.run."""
    silenced: Silenced = dask_worker.ospor_silenced
    return {f"{name} {level}": n for (name, level), n in sorted(silenced.counts.items())}
