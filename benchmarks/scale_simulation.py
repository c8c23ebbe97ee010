"""What a scheduler costs a shard at cohort scale: python benchmarks/scale_simulation.py [--shards N] [--workers N]

The real executor, scheduler and protocol with workers that only sleep: a process holds many of them, one thread each. First
shards that take no time, which gives the most shards a second that driver and scheduler can hand out; then shards that
sleep, for the idle time that waiting for the next shard costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, Worker

from ospor_batch.compute.executor import DaskExecutor

PER_PROCESS = 16


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


async def serve(address: str, n: int) -> None:
    workers = [Worker(address, nthreads=1, dashboard=False, memory_limit=0, name=f"{time.time_ns()}-{i}") for i in range(n)]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))


def round_of(executor: DaskExecutor, n: int, seconds: float) -> dict[str, Any]:
    folder = "/data/study/workspace/private/runs/0123456789abcdef/shards/0123456789abcdef-0123456789abcdef"
    from scale_simulation import Shard, sleep  # by name, as the stage's own function goes to workers

    shards = [Shard(f"{i:016x}", folder, folder, seconds) for i in range(n)]
    n_workers = len(executor.client.nthreads())
    cpu, began = time.process_time(), time.perf_counter()
    n_done = sum(1 for outcome in executor.map(sleep, shards) if outcome.error is None)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert n_done == n
    ideal = -(-n // n_workers) * seconds
    return {
        "shards": n, "workers": n_workers, "shard_seconds": seconds, "seconds": took, "ideal_seconds": ideal,
        "milliseconds_per_shard": 1e3 * took / n, "driver_and_scheduler_cpu_ms_per_shard": 1e3 * cpu / n,
        "busy_share": ideal / took, "peak_mb_driver_and_scheduler": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def shown(row: dict[str, Any]) -> dict[str, Any]:
    print(
        f"{row['shards']} shards of {row['shard_seconds']} s on {row['workers']} workers: {row['seconds']:.1f} s, "
        f"{row['milliseconds_per_shard']:.2f} ms a shard ({row['driver_and_scheduler_cpu_ms_per_shard']:.2f} ms CPU "
        f"of driver and scheduler), workers busy {row['busy_share']:.3f} of the time, "
        f"peak {row['peak_mb_driver_and_scheduler']:.0f} MB",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--shard-seconds", type=float, default=2.0)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve, given.workers))
        return
    dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with (
        LocalCluster(n_workers=0, processes=True, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        left, processes = given.workers, []
        while left > 0:
            command = [sys.executable, __file__, "--serve", cluster.scheduler_address, "--workers", str(min(left, PER_PROCESS))]
            processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            left -= PER_PROCESS
        client.wait_for_workers(given.workers, timeout=120)
        executor = DaskExecutor(client)
        rows = [shown(round_of(executor, given.shards, 0.0))]
        # long enough that handing out is a third of what the scheduler can do
        seconds = max(given.shard_seconds, 3 * given.workers * rows[0]["milliseconds_per_shard"] / 1e3)
        rows.append(shown(round_of(executor, max(given.shards // 8, 4 * given.workers), round(seconds, 2))))
        for process in processes:
            process.terminate()
    if given.json:
        given.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
