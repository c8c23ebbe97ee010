"""What a worker may take of memory: its share of the machine, all of which it may use, and no more than that."""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest
from distributed import LocalCluster
from distributed.system import MEMORY_LIMIT

from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import DaskExecutor, Outcome
from ospor_batch.config import Compute
from ospor_batch.errors import StudyError

cloudpickle.register_pickle_by_value(sys.modules[__name__])
LIMIT = 600_000_000


@pytest.fixture(scope="module")
def one() -> Iterator[DaskExecutor]:
    with open_executor(Compute(cluster="local", workers=1, memory_limit=str(LIMIT))) as opened:
        assert isinstance(opened, DaskExecutor)
        yield opened


def hold(size: int) -> int:
    """Keep so much memory that the process has this size, for as long as its monitor needs to see it; its size then."""
    import os
    import sys

    import numpy as np
    import psutil

    now = psutil.Process().memory_info().rss
    if size > now:
        sys.modules[f"held{os.getpid()}"] = np.ones(size - now, np.uint8)  # type: ignore[assignment]
    time.sleep(0.4 if size < LIMIT else 30)
    return int(psutil.Process().memory_info().rss)


def limit_of(executor: DaskExecutor) -> int:
    (worker,) = executor.client.scheduler_info(n_workers=-1)["workers"].values()
    return int(worker["memory_limit"])


def test_a_worker_that_keeps_memory_works_on_and_one_that_goes_over_it_is_replaced(one: DaskExecutor) -> None:
    assert limit_of(one) == LIMIT
    held = one.client.submit(hold, int(0.87 * LIMIT), pure=False).result(timeout=30)
    assert 0.8 * LIMIT < held < 0.95 * LIMIT
    assert one.client.submit(hold, 0, pure=False).result(timeout=30) > 0.8 * LIMIT  # it was not put aside
    assert list(one.map(hold, [2 * LIMIT])) == [Outcome(2 * LIMIT, None, "worker_died")]
    assert [outcome.error for outcome in one.map(hold, [0])] == [None]


def test_one_worker_has_the_memory_of_the_machine_and_not_of_one_core() -> None:
    for workers in (1, 2):
        with open_executor(Compute(cluster="local", workers=workers, workers_at_least=0)) as executor:
            assert isinstance(executor, DaskExecutor)
            options = executor.client.cluster.new_spec["options"]
        assert options["memory_limit"] == MEMORY_LIMIT // workers


def test_workers_of_gpus_share_the_memory_and_leave_that_of_the_device_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for dask-cuda, which needs a GPU, sees what would be asked of it."""
    asked: dict[str, Any] = {}

    def stand_in(**settings: Any) -> LocalCluster:
        asked.update(settings)
        return LocalCluster(**{**settings, "n_workers": 0})

    dask_cuda: Any = types.ModuleType("dask_cuda")
    dask_cuda.LocalCUDACluster, dask_cuda.utils = stand_in, types.ModuleType("dask_cuda.utils")
    dask_cuda.utils.get_n_gpus = lambda: 4
    monkeypatch.setitem(sys.modules, "dask_cuda", dask_cuda)
    monkeypatch.setitem(sys.modules, "dask_cuda.utils", dask_cuda.utils)
    with open_executor(Compute(cluster="cuda")) as executor:
        assert executor.is_expendable
    assert (asked["n_workers"], asked["memory_limit"], asked["threads_per_worker"]) == (4, MEMORY_LIMIT // 4, 1)
    assert (asked["protocol"], asked["host"]) == ("tls", "127.0.0.1")
    assert not [name for name in asked if "rmm" in name or "device_memory" in name]
    with (
        pytest.raises(StudyError, match="one worker runs per GPU and there are 4"),
        open_executor(Compute(cluster="cuda", workers=5)),
    ):
        pass
