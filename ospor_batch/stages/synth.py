"""Write a generated study: archives, exports, truth and a ready study file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import Executor
from ospor_batch.config import Compute
from ospor_batch.errors import StorageError, StudyError
from ospor_batch.stages.summary import Progress
from ospor_batch.store import read_part, storage_errors
from ospor_batch.synthetic.archive import SEED, write_study
from ospor_batch.synthetic.arrays import best_device
from ospor_batch.synthetic.presets import FILES, sizes_of

SMALL = frozenset({"tiny"})  # done before worker processes have started


def synth(
    out: Path,
    *,
    preset: str = "demo",
    seed: int = SEED,
    nights: int = 1,
    factor: float = 1.0,
    n_files: int = FILES,
    study: str | None = None,
    workers: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Generate into an empty or new folder; return the path of the study file, the first where a preset has several.

    study: one of a preset of several, written alone; others may lie beside its folder already.
    workers: processes; null gives one to `tiny` and one per core to the others. Bytes do not depend on it.
    device: where images are computed; null takes a GPU where torch sees one. Stored values may differ by 1 between devices.
    """
    folder = out if study is None else out / sizes_of(preset, factor=factor, n_files=n_files, study=study)[0].name
    if (out.exists() and not out.is_dir()) or (folder.is_dir() and any(folder.iterdir())):
        raise StudyError(f"{folder}: not an empty folder; name a new one, nothing was written")
    if workers is None and preset in SMALL:
        workers = 1
    compute = Compute(cluster="in_line" if workers == 1 else "local", workers=workers)
    with storage_errors(), open_executor(compute) as executor:
        return write_study(
            out.resolve(), preset=preset, seed=seed, nights=nights, factor=factor, n_files=n_files, study=study,
            device=device or best_device(), mapper=partial(_through, executor), progress=progress,
        )  # fmt: skip


def ceilings(study_file: Path) -> list[str]:
    """The best that any model can reach on a generated study, a line for the recipes of one kind and each target."""
    rows = read_part("ceiling", source=study_file.parent / "ceiling.parquet")
    kind = ["image", "standard"]
    named = rows.group_by(kind).agg(pl.col("recipe").unique().sort().str.join(", ").alias("recipes"))
    wide = rows.pivot("bound", index=[*kind, "target", "metric"], values="value", aggregate_function="first")
    told: dict[tuple[str, str], list[str]] = {}
    for row in wide.join(named, on=kind).sort("recipes", "target", "metric").iter_rows(named=True):
        both = f"{row['metric']} {_told(row['label_and_image_noise'])} ({_told(row['label_noise'])})"
        told.setdefault((row["recipes"], row["target"]), []).append(both)
    lines = [f"ceiling of {recipes}: {target}, {', '.join(found)}" for (recipes, target), found in told.items()]
    return [*lines, "in brackets: by the error of the label alone"] if lines else []


def _told(value: float | None) -> str:
    return "not estimable" if value is None else f"{value:.3f}"


def _through(executor: Executor, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """The answers of an executor, in the order of completion; a study of which a part is missing is no study."""
    for outcome in executor.map(function, items):
        if outcome.error is not None:
            raise StorageError(
                f"a part of the generated study could not be written ({outcome.error}): delete the folder and try again"
            )
        yield outcome.value
