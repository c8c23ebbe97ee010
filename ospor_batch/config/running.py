"""Where and when the work is done: clusters, and the nightly sweep."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ospor_batch.config.sections import Section, Share


class Slurm(Section):
    """What a batch job of one worker asks for; sizes and times as sbatch writes them."""

    partition: str | None = None
    account: str | None = None
    cores: Annotated[int, Field(ge=1)] = 1
    memory: str = "8GB"
    walltime: Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d\d){1,2}$")] = "01:00:00"
    directives: tuple[str, ...] = ()
    """Further lines of the job's head, such as "--gres=gpu:1"."""
    prologue: tuple[str, ...] = ()
    """Lines of shell before the worker starts, such as "module load cuda"."""
    queue_minutes: Annotated[float, Field(gt=0)] = 720.0
    """Minutes that a run waits while no job of its own runs; then it ends, and finished work is kept."""
    interface: str | None = None
    """Network interface that nodes reach the scheduler through; null for the host's own address."""


class Compute(Section):
    """A cluster and what its workers may take.

    workers: at most so many; null for one per core, per GPU, or for slurm one. workers_at_least: null for a fixed
    number; else their number follows the work. item_seconds: a series that takes longer ends its worker and is refused.
    """

    cluster: str = "in_line"
    workers: Annotated[int, Field(ge=1)] | None = None
    workers_at_least: Annotated[int, Field(ge=0)] | None = None
    threads_per_worker: Annotated[int, Field(ge=1)] = 1
    memory_limit: str = "auto"
    """Of each worker, such as "8GB"; "auto" for an even share of the machine. A worker at 0.95 of it is started anew."""
    shard_megabytes: Annotated[int, Field(ge=1)] = 256
    """Most that a shard reads; more where hundreds of workers would finish one each second (docs/scale.md)."""
    decode_threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of a worker that decode ahead of one that computes; null for one a core on a GPU, none on a CPU."""
    decode_processes: Annotated[int, Field(ge=1)] | None = None
    """Processes of a worker that decode in the threads' stead; for codecs that hold the interpreter lock, as JPEG 2000's."""
    decoded_items: Annotated[int, Field(ge=1)] | None = None
    """Most series that a worker holds decoded; null for a GPU's batch and one behind it, on a CPU one a core."""
    item_seconds: Annotated[float, Field(gt=0)] = 600.0
    out_of_memory: Literal["cpu", "reject"] = "cpu"
    """What becomes of a series that alone does not fit on the device."""
    slurm: Slurm | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.cluster not in {"in_line", "local", "cuda", "slurm"} and not re.match(r"^(tcp|tls|ucx)://", self.cluster):
            raise ValueError(
                f"cluster is {self.cluster!r}, expected in_line, local, cuda, slurm or an address such as tcp://host:8786"
            )
        if self.decode_processes is not None and self.cluster == "in_line":
            raise ValueError('decode_processes needs workers of their own; found cluster = "in_line", expected such as "local"')
        if self.slurm is not None and self.cluster != "slurm":
            raise ValueError(f'slurm is given, but cluster is {self.cluster!r}; expected "slurm"')
        if self.workers_at_least is not None:
            if self.cluster not in {"local", "slurm"}:
                raise ValueError(f"workers_at_least needs a cluster that can grow, local or slurm; found {self.cluster!r}")
            if self.workers is None or self.workers_at_least > self.workers:
                raise ValueError(f"workers_at_least is {self.workers_at_least}, expected at most workers, which must be given")
        return self


class ComputeSection(Section):
    cpu: Compute = Compute()
    gpu: Compute | None = None


class Drift(Section):
    minimum_n: int = 200
    count: Share = 0.2
    prevalence_points: float = 5


class Sweep(Section):
    cron: str = "30 20 * * *"
    allowed_hours: Annotated[str, Field(pattern=r"^\d\d:\d\d-\d\d:\d\d$")] | None = None
    catch_up: Literal["merge"] = "merge"
    settle_minutes: Annotated[int, Field(ge=0)] = 10
    drift: Drift = Drift()
