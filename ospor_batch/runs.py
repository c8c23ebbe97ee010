"""The run record: who, what, which versions; and the folder of one run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from ospor_batch import __version__
from ospor_batch.config import Study
from ospor_batch.contracts.registry import schemas_folder
from ospor_batch.contracts.table import schema_of
from ospor_batch.errors import StorageError, StudyError
from ospor_batch.store import GRACE_HOURS, Store, read_part, storage_errors, write_part


@dataclass(frozen=True)
class Run:
    """One execution, pinned to a snapshot; its outputs are immutable once complete."""

    run_id: str
    folder: Path
    private: Path
    predictions: Path
    snapshot: dict[str, int]
    record: dict[str, Any]

    @property
    def is_complete(self) -> bool:
        return bool(self.record["state"] == "complete")

    @property
    def stages_done(self) -> tuple[str, ...]:
        return tuple(stage for stage in self.record["stages_done"].split(";") if stage)

    def path(self, name: str, *, under: str = "", stem: str | None = None) -> Path:
        return self.folder / under / f"{stem or name}.parquet"

    def write(self, name: str, rows: pl.DataFrame, *, under: str = "", stem: str | None = None) -> Path:
        """Write a whole part of the run."""
        target = self.path(name, under=under, stem=stem)
        write_part(rows, name, target=target, stamp={"run_id": self.run_id})
        return target

    def read(self, name: str, *, under: str = "", stem: str | None = None) -> pl.DataFrame:
        """Read a part of the run; ContractError when it was not written yet."""
        return read_part(name, source=self.path(name, under=under, stem=stem))

    def has(self, name: str, *, under: str = "", stem: str | None = None) -> bool:
        return self.path(name, under=under, stem=stem).is_file()

    def marked(self, stage: str) -> Run:
        """The same run with a stage marked as done on disk."""
        done = [*(s for s in self.stages_done if s != stage), stage]
        return self._recorded(stages_done=";".join(done))

    def completed(self) -> Run:
        """The same run marked complete; ``runs/latest`` then points at it."""
        run = self._recorded(state="complete", finished_at=datetime.now(UTC))
        run._pointed_at("latest")
        return run

    def accepted(self) -> Run:
        """The same run as the one that drift is measured against: ``runs/accepted`` then points at it."""
        self._pointed_at("accepted")
        return self

    def reopened(self, *, at: str) -> Run:
        """The same run with a stage and all after it still to do; what was finished before stays."""
        done = self.stages_done
        kept = done[: done.index(at)] if at in done else done
        return self._recorded(state="started", finished_at=None, stages_done=";".join(kept))

    def _pointed_at(self, name: str) -> None:
        pointer = self.folder.parent / f".{name}.{os.getpid()}"
        with storage_errors(remove=pointer):
            pointer.unlink(missing_ok=True)
            pointer.symlink_to(self.run_id)
            pointer.replace(self.folder.parent / name)

    def _recorded(self, **changes: Any) -> Run:
        record = {**self.record, **changes}
        write_part(pl.DataFrame([record], schema=schema_of("run")), "run", target=self.folder / "run.parquet")
        return replace(self, record=record)


def open_run(
    study: Study, store: Store, *, models: Mapping[str, tuple[str, str, str]], snapshot: Mapping[str, int] | None = None
) -> Run:
    """The run that study, snapshot, code and models name; begun when it is not there yet."""
    _check_pointers(store)
    snapshot = dict(store.snapshot() if snapshot is None else snapshot)
    named = {
        "study": study.digest(),
        "contents": store.contents(snapshot),
        "code": code_digest(),
        "models": {recipe: list(digests) for recipe, digests in sorted(models.items())},
    }
    run_id = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]
    folder = store.workspace / "runs" / run_id
    if (folder / "run.parquet").is_file():
        return _run(store, folder)
    record = {
        "run_id": run_id,
        "study": study.study.name,
        "study_digest": study.digest(),
        "snapshot": json.dumps(snapshot, sort_keys=True),
        "code_version": f"{__version__}+{code_digest()}",
        "models": json.dumps(named["models"], sort_keys=True),
        "state": "started",
        "stages_done": "",
        "started_at": datetime.now(UTC),
        "finished_at": None,
        "is_generated": study.study.is_generated,
    }
    write_part(pl.DataFrame([record], schema=schema_of("run")), "run", target=folder / "run.parquet")
    return _run(store, folder)


def _check_pointers(store: Store) -> None:
    """StorageError when a copy of the workspace holds a run twice, the second time under the name of a pointer."""
    for name in ("latest", "accepted"):
        place = store.workspace / "runs" / name
        if place.is_dir() and not place.is_symlink():
            raise StorageError(
                f"runs/{name} in the workspace is a folder, expected a symbolic link to a run: the workspace was copied by a "
                f"tool that follows links. The run stands under its own name as well: delete runs/{name} and run again"
            )


def unfinished_run(study: Study, store: Store) -> Run | None:
    """A run of this very study and code that was begun and not completed; the latest when there are several."""
    begun = [
        run
        for run in all_runs(store)
        if run.record["state"] == "started"
        and run.record["study_digest"] == study.digest()
        and run.record["code_version"] == f"{__version__}+{code_digest()}"
    ]
    return max(begun, key=lambda run: (run.record["started_at"], run.run_id), default=None)


def latest_run(store: Store) -> Run | None:
    """The newest complete run."""
    return _pointed(store, "latest")


def accepted_run(store: Store) -> Run | None:
    """The run that drift is measured against; none before the first is accepted."""
    return _pointed(store, "accepted")


def run_at(folder: Path) -> tuple[Store, Run]:
    """The run in a folder such as WORKSPACE/runs/latest, with its workspace; StudyError when it is none."""
    found = folder.resolve()
    if not (found / "run.parquet").is_file() or found.parent.name != "runs":
        raise StudyError(f"{folder}: no run; expected a folder such as WORKSPACE/runs/latest or WORKSPACE/runs/RUN_ID")
    store = Store(found.parent.parent)
    return store, _run(store, found)


def read_run(store: Store, run_id: str) -> Run:
    """A run by its id; ContractError when there is none."""
    return _run(store, store.workspace / "runs" / run_id)


def all_runs(store: Store) -> list[Run]:
    """Every run of the workspace, sorted by id."""
    folder = store.workspace / "runs"
    found = sorted(p.parent for p in folder.glob("*/run.parquet") if not p.parent.is_symlink())
    return [_run(store, path) for path in found]


def tidy(store: Store, *, grace_hours: int = GRACE_HOURS) -> None:
    """Merge small files and delete what no kept run, no last commit and no late reader can name.

    A run is kept as long as its folder stands under ``runs/``: deleting the folder lets its version of the catalog go.
    """
    with store.lock():
        if store.compact():  # merging alone leaves files behind
            store.vacuum(keep=[run.snapshot for run in all_runs(store)], grace_hours=grace_hours)


@cache
def code_digest() -> str:
    """SHA-256 (first 12 digits) over the package's sources and contracts: other code, other run."""
    package = Path(__file__).parent
    files = sorted(
        (p.relative_to(package).as_posix(), p) for p in package.rglob("*") if p.suffix in {".py", ".yaml", ".css", ".js"}
    )
    files += sorted((f"schemas/{p.name}", p) for p in schemas_folder().glob("*.yaml"))
    whole = hashlib.sha256()
    for name, path in files:
        whole.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()[:12]


def _pointed(store: Store, name: str) -> Run | None:
    pointer = store.workspace / "runs" / name
    return _run(store, pointer.resolve()) if (pointer / "run.parquet").is_file() else None


def _run(store: Store, folder: Path) -> Run:
    record = read_part("run", source=folder / "run.parquet").to_dicts()[0]
    return Run(
        run_id=record["run_id"],
        folder=folder,
        private=store.private / "runs" / record["run_id"],
        predictions=store.workspace / "predictions",
        snapshot=json.loads(record["snapshot"]),
        record=record,
    )
