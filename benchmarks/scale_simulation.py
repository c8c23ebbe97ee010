"""What a scheduler costs a shard at cohort scale: python benchmarks/scale_simulation.py [--shards N] [--workers N]

The real executor, scheduler, protocol and encryption with workers that only sleep: without nannies, many in a process, a
thread each. First shards that take no time, which gives the most shards a second that driver and scheduler can hand out;
then shards that sleep, for the idle time that waiting for the next shard costs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, Worker
from distributed.security import Security

from ospor_batch.compute.executor import DaskExecutor

SECRETS = ("tls_ca_file", "tls_worker_cert", "tls_worker_key")
STARTED = "workers started"


@dataclass(frozen=True)
class Shard:
    """As large as what the stage really sends."""

    name: str
    shards: str
    predictions: str
    seconds: float


def sleep(shard: Shard) -> tuple[str, int]:
    time.sleep(shard.seconds)
    return shard.name, 64


async def serve(address: str, n: int, folder: Path) -> None:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    # a node's worker samples its stacks a hundred times a second, its loop fifty times and its machine twice: nothing there,
    # but all that a process does which holds a hundred workers
    quiet = {"worker.profile.enabled": False, "admin.tick.interval": "60s", "admin.system-monitor.interval": "60s"}
    dask.config.set({f"distributed.{name}": value for name, value in quiet.items()})
    security = Security(require_encryption=True, **{name: str(folder / name) for name in SECRETS})
    workers = [
        Worker(
            address, nthreads=1, dashboard=False, memory_limit=0, name=f"{os.getpid()}-{i}", local_directory=str(folder),
            security=security, host="127.0.0.1",
        )
        for i in range(n)
    ]  # fmt: skip
    await asyncio.gather(*workers)
    print(STARTED, flush=True)
    await asyncio.gather(*(worker.finished() for worker in workers))


@contextlib.contextmanager
def simulated(n_workers: int, n_processes: int) -> Iterator[Client]:
    """A scheduler in this process, as in a real run, and sleeping workers in a few others."""
    dask.config.set({"distributed.scheduler.allowed-failures": 0})
    security = Security.temporary()
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=0, processes=True, host="127.0.0.1", dashboard_address=None, security=security, silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        for name in SECRETS:
            (Path(folder) / name).write_text(getattr(security, name))
        counts = [n_workers // n_processes + (i < n_workers % n_processes) for i in range(n_processes)]
        here = [sys.executable, __file__, "--serve", cluster.scheduler_address, "--folder", folder, "--workers"]
        processes = [subprocess.Popen([*here, str(n)], stdout=subprocess.PIPE, text=True) for n in counts if n]
        try:
            for process in processes:
                assert process.stdout is not None
                if process.stdout.readline().strip() != STARTED:
                    raise SystemExit("the sleeping workers did not start")
            yield client
        finally:
            for process in processes:
                process.kill()
                process.wait()


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def round_of(executor: DaskExecutor, n: int, seconds: float) -> dict[str, Any]:
    folder = "/data/study/workspace/private/runs/0123456789abcdef/shards/0123456789abcdef-0123456789abcdef"
    from scale_simulation import Shard, sleep  # by name, as the stage's own function goes to workers

    shards = [Shard(f"{i:016x}", folder, folder, seconds) for i in range(n)]
    n_workers = len(executor.client.nthreads())
    before = resident_mb()
    cpu, began = time.process_time(), time.perf_counter()
    n_done, said = 0, began
    for outcome in executor.map(sleep, shards):
        n_done += outcome.error is None
        if time.perf_counter() - said > 20:
            said = time.perf_counter()
            print(f"  {n_done} of {n} after {said - began:.0f} s", file=sys.stderr, flush=True)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert n_done == n
    return {
        "shards": n, "workers": n_workers, "shard_seconds": seconds, "seconds": took, "shards_per_second": n / took,
        "cpu_ms_per_shard": 1e3 * cpu / n, "busy_share": n * seconds / (n_workers * took),
        "idle_ms_per_shard": 1e3 * (n_workers * took / n - seconds),
        "resident_mb_before": before, "resident_mb_after": resident_mb(),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }  # fmt: skip


def shown(row: dict[str, Any]) -> dict[str, Any]:
    idle = f", a worker idle {row['idle_ms_per_shard']:.0f} ms a shard, busy {row['busy_share']:.3f} of the time"
    print(
        f"{row['shards']} shards of {row['shard_seconds']} s on {row['workers']} workers: {row['seconds']:.1f} s, "
        f"{row['shards_per_second']:.0f} shards/s, {row['cpu_ms_per_shard']:.2f} ms of CPU of driver and scheduler a shard"
        f"{idle if row['shard_seconds'] else ''}; memory of driver and scheduler {row['resident_mb_before']:.0f} MB before, "
        f"{row['resident_mb_after']:.0f} MB after, {row['peak_mb']:.0f} MB at most",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2, help="that hold the sleeping workers")
    parser.add_argument("--shard-seconds", type=float, default=2.0)
    parser.add_argument("--burst", type=int, help="shards without sleep; as many as --shards when not given")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve, given.workers, given.folder))
        return
    with simulated(given.workers, given.processes) as client:
        executor = DaskExecutor(client)
        rows = [
            shown(round_of(executor, given.burst or given.shards, 0.0)),
            shown(round_of(executor, given.shards, given.shard_seconds)),
        ]
    if given.json:
        given.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
