"""Open the cluster that the study file names; Dask is imported here, late, and nowhere above."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ospor_batch.compute.executor import DaskExecutor, Executor, InLine
from ospor_batch.config.running import Slurm
from ospor_batch.errors import StudyError

if TYPE_CHECKING:
    from distributed import Client

    from ospor_batch.config import Compute

LOOPBACK = "127.0.0.1"
CONNECT_SECONDS = 30
FIRST_WORKER_SECONDS = 120  # a batch queue may still be starting the workers of an address
# set when a process starts, before NumPy and torch read them
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextlib.contextmanager
def open_executor(settings: Compute) -> Iterator[Executor]:
    """Open what ``[compute]`` names and close it again, on Ctrl-C too; StudyError when it cannot be had."""
    if settings.cluster == "in_line":
        yield InLine()
        return
    opened = {"local": _processes, "cuda": _gpus, "slurm": _batch_jobs}.get(settings.cluster, _address)
    with opened(settings) as client:
        yield DaskExecutor(client, most_workers=(settings.workers or 1) if _grows(settings) else 1)


def _grows(settings: Compute) -> bool:
    return settings.workers_at_least is not None or settings.cluster == "slurm"


@contextlib.contextmanager
def _processes(settings: Compute) -> Iterator[Client]:
    from distributed import LocalCluster

    n_cores = os.cpu_count() or 1
    n_workers = settings.workers or n_cores
    n_threads = max(1, n_cores // n_workers)
    at_first = n_workers if settings.workers_at_least is None else settings.workers_at_least
    with (
        _configured(n_threads=n_threads),
        LocalCluster(n_workers=at_first, processes=True, **_quiet(settings)) as cluster,
        _client(cluster, settings=settings, n_threads=n_threads) as client,
    ):
        yield client


@contextlib.contextmanager
def _gpus(settings: Compute) -> Iterator[Client]:
    n_gpus = _count_gpus()
    if settings.workers is not None and settings.workers > n_gpus:
        raise StudyError(f"compute.workers is {settings.workers}, but one worker runs per GPU and there are {n_gpus}")
    from dask_cuda import LocalCUDACluster

    n_workers = settings.workers or n_gpus
    n_threads = max(1, (os.cpu_count() or 1) // n_workers)
    with (
        _configured(n_threads=n_threads),
        # no RMM pool beside torch, which has its own allocator
        LocalCUDACluster(n_workers=n_workers, protocol="tcp", **_quiet(settings)) as cluster,
        _client(cluster, settings=settings, n_threads=n_threads) as client,
    ):
        yield client


@contextlib.contextmanager
def _batch_jobs(settings: Compute) -> Iterator[Client]:
    """One worker a Slurm job; the scheduler runs here, so nodes must reach this host."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise StudyError(
            'compute: cluster = "slurm" needs dask-jobqueue, which is not installed: pip install "ospor-batch[hpc]"'
        ) from None
    asked = settings.slurm or Slurm()
    n_threads = max(1, asked.cores // settings.threads_per_worker)
    address = {"interface": asked.interface} if asked.interface else {"host": socket.gethostbyname(socket.gethostname())}
    with (
        _configured(n_threads=n_threads),
        SLURMCluster(
            queue=asked.partition, account=asked.account, walltime=asked.walltime, memory=asked.memory, processes=1,
            # jobqueue gives a worker as many threads as the job has cores; here cores decode and compute beside one task
            cores=settings.threads_per_worker, job_cpu=asked.cores, job_extra_directives=list(asked.directives),
            job_script_prologue=[*(f"export {name}={n_threads}" for name in THREAD_VARIABLES), *asked.prologue],
            scheduler_options={"dashboard_address": f"{LOOPBACK}:0", **address},
        ) as cluster,
        _client(cluster, settings=settings, n_threads=n_threads) as client,
    ):  # fmt: skip
        if settings.workers_at_least is None:
            cluster.scale(settings.workers or 1)
        yield client


@contextlib.contextmanager
def _client(cluster: Any, *, settings: Compute, n_threads: int) -> Iterator[Client]:
    from distributed import Client

    from ospor_batch.compute.setup import WorkerSetup

    with Client(cluster) as client:
        client.register_plugin(WorkerSetup(n_threads))
        if settings.workers_at_least is not None:
            cluster.adapt(minimum=settings.workers_at_least, maximum=settings.workers)
        yield client


@contextlib.contextmanager
def _address(settings: Compute) -> Iterator[Client]:
    from distributed import Client

    from ospor_batch.compute.setup import WorkerSetup

    address = settings.cluster
    with _configured(n_threads=1):
        try:
            client = Client(address, timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            raise StudyError(f"compute.cluster: no Dask scheduler answers at {address} ({type(error).__name__})") from None
        with client:
            try:
                client.wait_for_workers(1, timeout=FIRST_WORKER_SECONDS)
            except TimeoutError:
                raise StudyError(f"compute.cluster: no worker joined {address} within {FIRST_WORKER_SECONDS} s") from None
            # the scheduler runs elsewhere with settings of its own: here too a task that killed its worker is not tried again
            client.run_on_scheduler(_never_try_again)
            client.register_plugin(WorkerSetup(1))
            yield client


@contextlib.contextmanager
def _configured(*, n_threads: int) -> Iterator[None]:
    import dask

    environment = dict.fromkeys(THREAD_VARIABLES, n_threads)
    with dask.config.set(
        {
            "distributed.scheduler.allowed-failures": 0,
            "distributed.worker.daemon": False,  # a daemonic process may have no decoder processes
            "distributed.nanny.pre-spawn-environ": {"MALLOC_TRIM_THRESHOLD_": 65536, **environment},
        }
    ):
        yield


def _quiet(settings: Compute) -> dict[str, Any]:
    return {
        "threads_per_worker": settings.threads_per_worker,
        "memory_limit": settings.memory_limit,
        "host": LOOPBACK,
        # named, since Dask serves HTTP on all interfaces where no address is given
        "dashboard_address": f"{LOOPBACK}:0",
        "worker_dashboard_address": f"{LOOPBACK}:0",
        "silence_logs": logging.CRITICAL,
    }


def _count_gpus() -> int:
    try:
        import dask_cuda.utils
    except ImportError:
        raise StudyError(
            'compute: cluster = "cuda" needs dask-cuda, which is not installed: pip install "ospor-batch[gpu]"'
        ) from None
    try:
        n_gpus = int(dask_cuda.utils.get_n_gpus())
    # NVML raises classes of its own when driver or device is missing; importing them would need NVML
    except Exception as error:  # noqa: BLE001
        raise StudyError(f'compute: cluster = "cuda", but no GPU answers ({type(error).__name__})') from None
    if n_gpus < 1:
        raise StudyError('compute: cluster = "cuda", but no GPU is visible here')
    return n_gpus


def _never_try_again(dask_scheduler: Any) -> None:
    dask_scheduler.allowed_failures = 0
