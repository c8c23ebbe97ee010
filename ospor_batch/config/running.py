"""Where and when the work is done: clusters, and the nightly sweep."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ospor_batch.config.sections import Section, Share


class Compute(Section):
    cluster: str = "in_line"
    workers: Annotated[int, Field(ge=1)] | None = None
    threads_per_worker: Annotated[int, Field(ge=1)] = 1
    memory_limit: str = "auto"
    shard_megabytes: Annotated[int, Field(ge=1)] = 256

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.cluster not in {"in_line", "local", "cuda"} and not re.match(r"^(tcp|tls|ucx)://", self.cluster):
            raise ValueError(
                f"cluster is {self.cluster!r}, expected in_line, local, cuda or an address such as tcp://host:8786"
            )
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
