"""Write a generated study: archives, exports, truth and a study file that is ready to run. Nothing in it is clinical."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.errors import StudyError
from ospor_batch.synthetic.ceiling import ceiling_table
from ospor_batch.synthetic.exports import export, file_name
from ospor_batch.synthetic.labels import exams_of
from ospor_batch.synthetic.patient_files import Detail, index_series, patient_files, scan_of
from ospor_batch.synthetic.population import CENTERS, Person, Rates, center_plan, people
from ospor_batch.synthetic.presets import FILES, PRESETS, Size, sizes_of
from ospor_batch.synthetic.scale import plan_shards, write_shard
from ospor_batch.synthetic.seeding import secret
from ospor_batch.synthetic.study_file import README
from ospor_batch.synthetic.truth import truth_table
from ospor_batch.synthetic.truth_files import truth_file_table, truth_row
from ospor_batch.synthetic.truth_masks import true_masks, truth_structure_table

__all__ = ["CENTERS", "FIRST_NIGHT", "PRESETS", "SEED", "Night", "add_night", "people_of", "write_study"]

Progress = Callable[[int, int], None]  # persons written, persons in all; files where there are no pixels
Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]  # as the built-in map; answers may come in any order
FIRST_NIGHT = datetime(2024, 1, 1, 2, 0, tzinfo=UTC)  # when the files of night 1 were last changed; a day more each night
RECORD = "generated.json"
SEED = 20220101


@dataclass(frozen=True)
class Night:
    """One night of arrivals: its seed, and the numbers of its people in each center."""

    number: int
    seed: int
    numbers: Mapping[str, tuple[int, int]]  # center -> first number, count


Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class _Job:
    """One person to be written by a worker."""

    out: Path
    person: Person
    detail: Detail


@dataclass(frozen=True)
class _Written:
    """Rows of truth_file and truth_structure of what was written."""

    files: Rows
    structures: Rows


def write_study(
    out: Path,
    *,
    preset: str = "demo",
    seed: int = SEED,
    nights: int = 1,
    patients_a_night: int = 4,
    factor: float = 1.0,
    n_files: int = FILES,
    study: str | None = None,
    device: str = "cpu",
    mapper: Mapper = map,
    progress: Progress | None = None,
) -> Path:
    """Write a generated study into an empty folder and return the path of its study.toml.

    The same words give the same bytes, whatever the mapper; on another device stored values differ by 1 here and
    there. Nights after the first bring patients_a_night people each, as
    add_night does. A preset of several studies writes each into a folder of its own and returns the first; study names
    the one that is written alone, into the same folder and of the same bytes.
    """
    sizes = sizes_of(preset, factor=factor, n_files=n_files, study=study)
    if nights > 1 and (len(sizes) > 1 or sizes[0].is_header_only):
        raise StudyError(f"preset {preset}: it arrives in one night; nights are for a single study with pixels")
    for size in (replace(size, detail=replace(size.detail, device=device)) for size in sizes):
        folder = out / size.name
        plan = _plan(size, seed=seed, nights=nights, patients_a_night=patients_a_night)
        _refuse_foreign(folder, record=_record(preset, plan, size))
        _write_key(folder, seed)
        if size.is_header_only:
            plan = _write_headers(folder, size, seed=seed, mapper=mapper, progress=progress)
            found = None
        else:
            found = _write_people(folder, people_of(plan, rates=size.rates, is_planted=size.is_planted), size,
                                  mapper=mapper, progress=progress)  # fmt: skip
        _write_tables(folder, preset=preset, plan=plan, size=size, found=found)
        _write(folder / "study.toml", size.study_text(preset=preset, seed=seed).encode(), night=1)
        recipes = size.all_recipes_text(preset=preset, seed=seed)
        if recipes is not None:
            _write(folder / "recipes.toml", recipes.encode(), night=1)
        _write(folder / "README.txt", README.encode(), night=1)
    return out / sizes[0].name / "study.toml"


def add_night(out: Path, *, seed: int | None = None, n_patients: int = 4, progress: Progress | None = None) -> list[Path]:
    """Add the people of one more night to a generated study and return the paths of their files, sorted.

    Without a seed the files equal those of write_study with one night more.
    """
    preset, plan, words = _read_record(out)
    (size, *more) = sizes_of(preset, factor=words.get("factor", 1.0))
    if more or size.is_header_only:
        raise StudyError(f"preset {preset}: it arrives in one night")
    night = _next_night(plan, seed=plan[0].seed + len(plan) if seed is None else seed, n_patients=n_patients)
    arrived = people_of([night], rates=size.rates, is_planted=size.is_planted)
    found = _write_people(out, arrived, size, mapper=map, progress=progress)
    _write_tables(out, preset=preset, plan=[*plan, night], size=size, found=found, is_more=True)
    return sorted(out / "archives" / row["center"] / row["path"] for row in found.files)


def people_of(plan: Sequence[Night], *, rates: Rates, is_planted: bool = True) -> list[Person]:
    """Everyone of the given nights, by night, center and number."""
    return [
        person
        for night in plan
        for center, (first, count) in night.numbers.items()
        for person in people(
            center, range(first, first + count), seed=night.seed, night=night.number, rates=rates, is_planted=is_planted
        )
    ]


def _plan(size: Size, *, seed: int, nights: int, patients_a_night: int) -> list[Night]:
    plan = [Night(1, seed, {center: (1, count) for center, count in size.counts.items()})]
    while len(plan) < nights:
        plan.append(_next_night(plan, seed=seed + len(plan), n_patients=patients_a_night))
    return plan


def _next_night(plan: Sequence[Night], *, seed: int, n_patients: int) -> Night:
    """The people of one more night, dealt to the centers in turn."""
    names = list(plan[0].numbers)
    counts = {name: len(range(i, n_patients, len(names))) for i, name in enumerate(names)}
    taken = {name: sum(night.numbers[name][1] for night in plan) for name in names}
    return Night(len(plan) + 1, seed, {name: (taken[name] + 1, counts[name]) for name in names})


def _write_people(out: Path, everyone: Sequence[Person], size: Size, *, mapper: Mapper, progress: Progress | None) -> _Written:
    jobs, found = [_Job(out, person, size.detail) for person in everyone], _Written([], [])
    for done, part in enumerate(mapper(_write_person, jobs), start=1):
        found.files.extend(part.files)
        found.structures.extend(part.structures)
        if progress is not None:
            progress(done, len(jobs))
    return found


def _write_person(job: _Job) -> _Written:
    """Write the files and the true masks of one person; the work of one task."""
    person, detail = job.person, job.detail
    scanned = scan_of(person, detail, is_contrast=person.is_contrast) if person.is_ct else None
    found = _Written([], [])
    for file in patient_files(person, detail=detail, scanned=scanned):
        _write(job.out / "archives" / person.center / file.path, file.content, night=person.night)
        found.files.append(truth_row(person, file))
    if scanned is not None:
        masks = true_masks(index_series(person), scanned)
        for name, content in masks.files:
            _write(job.out / "truth_masks" / name, content, night=person.night)
        found.structures.extend(masks.rows)
    return found


def _write_headers(out: Path, size: Size, *, seed: int, mapper: Mapper, progress: Progress | None) -> list[Night]:
    """Write files without pixels until there are as many as asked for; answers the plan that this took."""
    shards = plan_shards(size.n_files, seed=seed, rates=size.rates, detail=size.detail)
    done, at = 0, _time_of(1)
    jobs = [replace(shard, out=out, time_ns=at) for shard in shards]
    for n_files in mapper(write_shard, jobs):
        done += n_files
        if progress is not None:
            progress(done, size.n_files)
    counts = {center.name: sum(len(s.numbers) for s in shards if s.center == center.name) for center in CENTERS}
    return [Night(1, seed, {center: (1, count) for center, count in counts.items()})]


def _write_tables(
    out: Path, *, preset: str, plan: Sequence[Night], size: Size, found: _Written | None, is_more: bool = False
) -> None:
    """Exports, truth and the record of how they were made; each is written anew for all nights.

    found: None where files have no pixels. is_more: it holds the last night alone and is added to what stands there.
    """
    everyone, last = people_of(plan, rates=size.rates, is_planted=size.is_planted), plan[-1].number
    for center in plan[0].numbers:
        manner = center_plan(center).manner or center
        exams = [exam for person in everyone if person.center == center for exam in exams_of(person)]
        _write(out / "exports" / file_name(manner, center), export(manner, exams), night=last)
    first = size.recipe_labels[0]
    truth = truth_table(everyone, image=first.image, standard=first.standard)
    if found is None:
        truth = truth.with_columns(expected_prediction=pl.lit(value=False))  # nothing can be measured in it
    else:
        _write_part(out, "truth_file", truth_file_table(found.files), night=last, is_more=is_more)
        _write_part(out, "truth_structure", truth_structure_table(found.structures), night=last, is_more=is_more)
    _write_part(out, "truth", truth, night=last)
    plans = [center_plan(center) for center in plan[0].numbers]
    ceilings = ceiling_table(
        size.recipe_labels, plans=plans, seed=plan[0].seed, is_referred_by_risk=size.rates.is_referred_by_risk
    )
    _write_part(out, "ceiling", ceilings, night=last)
    _write(out / RECORD, _record(preset, plan, size), night=last)


def _write_part(out: Path, name: str, rows: pl.DataFrame, *, night: int, is_more: bool = False) -> None:
    path = out / f"{name}.parquet"
    if is_more:
        rows = pl.concat([pl.read_parquet(path), rows]).sort(contract(name).primary_key)
    rows.write_parquet(path, metadata=contract(name).stamp())
    _set_time(path, night=night)


def _record(preset: str, plan: Sequence[Night], size: Size) -> bytes:
    told = {"preset": preset, **size.words, "nights": [asdict(night) for night in plan]}
    return (json.dumps(told, indent=1) + "\n").encode()


def _read_record(out: Path) -> tuple[str, list[Night], dict[str, float]]:
    try:
        told = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{out}: no generated study here; `ospor-batch synth` writes one") from None
    nights = [
        Night(night["number"], night["seed"], {center: (first, n) for center, (first, n) in night["numbers"].items()})
        for night in told["nights"]
    ]
    return str(told["preset"]), nights, {word: told[word] for word in ("factor", "files") if word in told}


def _refuse_foreign(out: Path, *, record: bytes) -> None:
    """Only an empty folder is written to, or one that already holds this very study."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    found = out / RECORD
    if not found.is_file() or found.read_bytes() != record:
        raise StudyError(f"{out}: the folder is not empty; a generated study is written into a new one")


def _write_key(out: Path, seed: int) -> None:
    """The key of a generated study, readable by its owner alone."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "pseudonym.key"
    path.touch(mode=0o600)
    path.chmod(0o600)
    _write(path, f"{secret(seed)}\n".encode(), night=1)


def _write(path: Path, content: bytes, *, night: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    _set_time(path, night=night)


def _set_time(path: Path, *, night: int) -> None:
    os.utime(path, ns=(_time_of(night), _time_of(night)))


def _time_of(night: int) -> int:
    return int((FIRST_NIGHT + timedelta(days=night - 1)).timestamp()) * 10**9
