"""Open the cluster that the study file names; Dask is imported here, late, and nowhere above."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ospor_batch.compute.executor import AGAIN, DaskExecutor, Executor, InLine, Patience
from ospor_batch.config.running import Slurm
from ospor_batch.errors import ClusterError, StudyError

if TYPE_CHECKING:
    from distributed import Client
    from distributed.security import Security

    from ospor_batch.config import Compute

LOOPBACK = "127.0.0.1"
CONNECT_SECONDS = 30
SETTLE_SECONDS = 60.0  # for a worker that is being started again as a run ends
FIRST_WORKER_SECONDS = 120  # a batch queue may still be starting the workers of an address
# set when a process starts, before NumPy, torch and Polars read them
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


@contextlib.contextmanager
def open_executor(settings: Compute) -> Iterator[Executor]:
    """Open what ``[compute]`` names and close it again, on Ctrl-C too; StudyError when it cannot be had."""
    if settings.cluster == "in_line":
        yield InLine()
        return
    opened = {"local": _processes, "cuda": _gpus, "slurm": _batch_jobs}.get(settings.cluster, _address)
    with opened(settings) as client:
        yield DaskExecutor(
            client,
            most_workers=(settings.workers or 1) if _grows(settings) else 1,
            patience=_patience(settings),
            is_here=settings.cluster in {"local", "cuda"},
        )


def _patience(settings: Compute) -> Patience | None:
    if settings.cluster != "slurm":
        return None
    minutes = (settings.slurm or Slurm()).queue_minutes
    return Patience(
        60 * minutes,
        "squeue says why the jobs of this run wait, and their slurm-*.out why they ended; ask for less, or ask the "
        "administrators of the cluster (compute.slurm.queue_minutes is how long a run waits)",
    )


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
        LocalCluster(n_workers=at_first, processes=True, security=_secret(), **_quiet(settings, n_workers)) as cluster,
        _client(cluster, settings=settings, n_threads=n_threads) as client,
        _waiting_for_the_dead(client),
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
        LocalCUDACluster(n_workers=n_workers, protocol="tls", security=_secret(), **_quiet(settings, n_workers)) as cluster,
        _client(cluster, settings=settings, n_threads=n_threads) as client,
        _waiting_for_the_dead(client),
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
    settled = dict.fromkeys(("DASK_DISTRIBUTED__WORKER__DAEMON", "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"), False)
    exported = {**dict.fromkeys(THREAD_VARIABLES, n_threads), **settled}
    with (
        _configured(n_threads=n_threads),
        # here, since a job starts in the folder that it was sent from; mode 0700
        tempfile.TemporaryDirectory(prefix=".ospor-cluster-", dir=Path.cwd()) as folder,
        SLURMCluster(
            queue=asked.partition, account=asked.account, walltime=asked.walltime, memory=asked.memory, processes=1,
            # jobqueue gives a worker as many threads as the job has cores; here cores decode and compute beside one task
            cores=settings.threads_per_worker, job_cpu=asked.cores, job_extra_directives=list(asked.directives),
            job_script_prologue=[*(f"export {name}={value}" for name, value in exported.items()), *asked.prologue],
            security=_on_disk(_secret(), Path(folder)),
            scheduler_options={"dashboard_address": f"{LOOPBACK}:0", **address},
        ) as cluster,
        _client(cluster, settings=settings, n_threads=n_threads) as client,
    ):  # fmt: skip
        _ask_queue(cluster.job_script())
        at_least = (settings.workers or 1) if settings.workers_at_least is None else settings.workers_at_least
        # adapted though their number be fixed: a job that its walltime ended is followed by another
        cluster.adapt(minimum=at_least, maximum=settings.workers or 1)
        yield client


def _ask_queue(script: str) -> None:
    """See whether the queue would take such a job; later, a refusal would only be logged and waited out."""
    try:
        asked = subprocess.run(
            ["sbatch", "--test-only"], input=script, capture_output=True, text=True, timeout=CONNECT_SECONDS, check=False
        )  # fmt: skip
    except FileNotFoundError:
        raise StudyError('compute: cluster = "slurm", but there is no sbatch here: run this where jobs are submitted') from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"compute.slurm: sbatch does not answer within {CONNECT_SECONDS} s; {AGAIN}") from None
    if asked.returncode:
        raise ClusterError(
            f"compute.slurm: sbatch would refuse the job: {' '.join(asked.stderr.split())}; mend [compute.*.slurm], or "
            f"ask the administrators of the cluster; {AGAIN}"
        )


@contextlib.contextmanager
def _client(cluster: Any, *, settings: Compute, n_threads: int) -> Iterator[Client]:
    from distributed import Client

    from ospor_batch.compute.setup import WorkerSetup

    with Client(cluster) as client:
        client.register_plugin(WorkerSetup(n_threads))
        if settings.workers_at_least is not None and settings.cluster == "local":
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
        except (OSError, TimeoutError, TypeError, ValueError) as error:  # TypeError: tls:// without certificates
            raise StudyError(
                f"compute.cluster: no Dask scheduler answers at {address} ({type(error).__name__}); "
                "for tls:// the certificates stand in Dask's own configuration, distributed.comm.tls"
            ) from None
        with client:
            try:
                client.wait_for_workers(1, timeout=FIRST_WORKER_SECONDS)
            except TimeoutError:
                raise ClusterError(
                    f"compute.cluster: no worker joined {address} within {FIRST_WORKER_SECONDS} s; ask whoever runs it"
                ) from None
            # the scheduler runs elsewhere with settings of its own: here too a task that killed its worker is not tried again
            client.run_on_scheduler(_never_try_again)
            client.register_plugin(WorkerSetup(1))
            if settings.decode_processes and any(client.run(is_daemonic).values()):
                raise StudyError(
                    "compute.decode_processes: the workers there may start no process; start them with "
                    "DASK_DISTRIBUTED__WORKER__DAEMON=False in their environment"
                )
            yield client


def is_daemonic() -> bool:
    """True where this process may have no child processes."""
    return multiprocessing.current_process().daemon


@contextlib.contextmanager
def _waiting_for_the_dead(client: Client) -> Iterator[None]:
    """Wait for workers of this machine that are being started again, however long it takes on a busy one.

    By default Dask gives up for good what is not back after 15 s; and a cluster that is closed while a worker starts again may
    never end.
    """
    import dask

    with dask.config.set({"distributed.deploy.lost-worker-timeout": f"{Patience().seconds:g}s"}):
        try:
            yield
        except Exception:
            _settle(client)
            raise
        _settle(client)  # not on Ctrl-C


def _settle(client: Client) -> None:
    n_wanted = len(client.cluster.worker_spec)
    if n_wanted and client.status == "running":
        with contextlib.suppress(TimeoutError, OSError):
            client.wait_for_workers(n_wanted, timeout=SETTLE_SECONDS)


@contextlib.contextmanager
def _configured(*, n_threads: int) -> Iterator[None]:
    import dask

    environment = dict.fromkeys(THREAD_VARIABLES, n_threads)
    with dask.config.set(
        {
            "distributed.scheduler.allowed-failures": 0,
            "distributed.worker.daemon": False,  # a daemonic process may have no decoder processes
            # Dask looks at every stack each 10 ms, here and in workers, for a page that is seldom asked for: a tenth of a crawl
            "distributed.worker.profile.enabled": False,
            "distributed.nanny.pre-spawn-environ": {"MALLOC_TRIM_THRESHOLD_": 65536, **environment},
        }
    ):
        yield


def _secret() -> Security:
    """A certificate and key of this run alone: nobody else of this machine or network can join, send or read.

    Without it, whoever finds the port of a Dask scheduler can let it run code as the person who started it.
    """
    from distributed.security import Security

    try:
        return Security.temporary()
    except ImportError:
        raise StudyError("compute: a cluster needs cryptography, which is not installed: pip install cryptography") from None


def _on_disk(secret: Security, folder: Path) -> Security:
    """The same with what workers need as files, since a batch job is told where they lie."""
    for name in ("tls_ca_file", "tls_worker_cert", "tls_worker_key"):
        file = folder / name
        file.touch(mode=0o600)
        file.write_text(getattr(secret, name))
        setattr(secret, name, str(file))
    return secret


def _quiet(settings: Compute, n_workers: int) -> dict[str, Any]:
    from distributed.system import MEMORY_LIMIT

    is_shared = settings.memory_limit == "auto"  # Dask would go by threads: to one worker it would give the share of one core
    return {
        "threads_per_worker": settings.threads_per_worker,
        "memory_limit": MEMORY_LIMIT // n_workers if is_shared else settings.memory_limit,
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
