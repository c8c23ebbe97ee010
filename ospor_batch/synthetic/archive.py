"""Write a generated study: archives, exports, truth and a study file that is ready to run. Nothing in it is clinical."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from ospor_batch.contracts import contract
from ospor_batch.errors import StudyError
from ospor_batch.synthetic.ct import Sampling
from ospor_batch.synthetic.exports import export
from ospor_batch.synthetic.labels import exams_of
from ospor_batch.synthetic.patient_files import patient_files
from ospor_batch.synthetic.population import CENTERS, Person, Rates, people
from ospor_batch.synthetic.seeding import secret
from ospor_batch.synthetic.study_file import README, study_file
from ospor_batch.synthetic.truth import truth_table

Progress = Callable[[int, int], None]  # persons written, persons in all
Preset = Literal["tiny", "demo"]
FIRST_NIGHT = datetime(2024, 1, 1, 2, 0, tzinfo=UTC)  # when the files of night 1 were last changed; a day more each night
RECORD = "generated.json"
SEED = 20220101


@dataclass(frozen=True)
class Size:
    """How large and how finely sampled a preset is."""

    per_center: int
    sampling: Sampling
    radiograph_matrix: int
    rates: Rates
    tuning: float
    cluster: str


PRESETS: dict[str, Size] = {
    "tiny": Size(10, Sampling(64), 96, Rates(0.0, 0.0, 0.0, 0.15), tuning=0.5, cluster="in_line"),
    "demo": Size(60, Sampling(80), 192, Rates(0.06, 0.05, 0.08, 0.25), tuning=0.3, cluster="local"),
}


@dataclass(frozen=True)
class Night:
    """One night of arrivals: its seed, and the numbers of its people in each center."""

    number: int
    seed: int
    numbers: dict[str, tuple[int, int]]  # center -> first number, count


def write_study(
    out: Path,
    *,
    preset: str = "demo",
    seed: int = SEED,
    nights: int = 1,
    patients_a_night: int = 4,
    progress: Progress | None = None,
) -> Path:
    """Write a generated study into an empty folder and return the path of its study.toml.

    The same words give the same bytes. Nights after the first bring patients_a_night people each, as add_night does.
    """
    size = _size(preset)
    plan = [Night(1, seed, {center.name: (1, size.per_center) for center in CENTERS})]
    while len(plan) < nights:
        plan.append(_next_night(plan, seed=seed + len(plan), n_patients=patients_a_night))
    _refuse_foreign(out, preset=preset, plan=plan)
    _write_key(out, seed)
    _write_people(out, plan, size=size, progress=progress)
    _write_tables(out, preset=preset, plan=plan)
    text = study_file(name=f"generated-{preset}", seed=seed, tuning=size.tuning, cluster=size.cluster)
    _write(out / "study.toml", text.encode(), night=1)
    _write(out / "README.txt", README.encode(), night=1)
    return out / "study.toml"


def add_night(out: Path, *, seed: int | None = None, n_patients: int = 4, progress: Progress | None = None) -> list[Path]:
    """Add the people of one more night to a generated study and return the paths of their files, sorted.

    Without a seed the files equal those of write_study with one night more.
    """
    preset, plan = _read_record(out)
    night = _next_night(plan, seed=plan[0].seed + len(plan) if seed is None else seed, n_patients=n_patients)
    written = _write_people(out, [night], size=_size(preset), progress=progress)
    _write_tables(out, preset=preset, plan=[*plan, night])
    return sorted(written)


def people_of(plan: Sequence[Night], *, rates: Rates) -> list[Person]:
    """Everyone of the given nights, by night, center and number."""
    return [
        person
        for night in plan
        for center, (first, count) in night.numbers.items()
        for person in people(center, range(first, first + count), seed=night.seed, night=night.number, rates=rates)
    ]


def _next_night(plan: Sequence[Night], *, seed: int, n_patients: int) -> Night:
    """The people of one more night, dealt to the centers in turn."""
    names = [center.name for center in CENTERS]
    counts = {name: len(range(i, n_patients, len(names))) for i, name in enumerate(names)}
    taken = {name: sum(night.numbers[name][1] for night in plan) for name in names}
    return Night(len(plan) + 1, seed, {name: (taken[name] + 1, counts[name]) for name in names})


def _size(preset: str) -> Size:
    if preset not in PRESETS:
        raise StudyError(f"no preset named {preset!r}; there are {', '.join(PRESETS)}")
    return PRESETS[preset]


def _write_people(out: Path, plan: Sequence[Night], *, size: Size, progress: Progress | None) -> list[Path]:
    everyone, written = people_of(plan, rates=size.rates), []
    for done, person in enumerate(everyone, start=1):
        root = out / "archives" / person.center
        for file in patient_files(person, sampling=size.sampling, radiograph_matrix=size.radiograph_matrix):
            written.append(root / file.path)
            _write(root / file.path, file.content, night=person.night)
        if progress is not None:
            progress(done, len(everyone))
    return written


def _write_tables(out: Path, *, preset: str, plan: Sequence[Night]) -> None:
    """Exports, truth and the record of how they were made; each is written anew for all nights."""
    everyone, last = people_of(plan, rates=_size(preset).rates), plan[-1].number
    for center in CENTERS:
        exams = [exam for person in everyone if person.center == center.name for exam in exams_of(person)]
        name, content = export(center.name, exams)
        _write(out / "exports" / name, content, night=last)
    truth = out / "truth.parquet"
    truth_table(everyone).write_parquet(truth, metadata=contract("truth").stamp())
    _set_time(truth, night=last)
    _write(out / RECORD, _record(preset, plan), night=last)


def _record(preset: str, plan: Sequence[Night]) -> bytes:
    told = {"preset": preset, "nights": [asdict(night) for night in plan]}
    return (json.dumps(told, indent=1) + "\n").encode()


def _read_record(out: Path) -> tuple[str, list[Night]]:
    try:
        told = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{out}: no generated study here; `ospor-batch synth` writes one") from None
    nights = [
        Night(night["number"], night["seed"], {center: (first, n) for center, (first, n) in night["numbers"].items()})
        for night in told["nights"]
    ]
    return str(told["preset"]), nights


def _refuse_foreign(out: Path, *, preset: str, plan: Sequence[Night]) -> None:
    """Only an empty folder is written to, or one that already holds this very study."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    record = out / RECORD
    if not record.is_file() or record.read_bytes() != _record(preset, plan):
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
    at = int((FIRST_NIGHT + timedelta(days=night - 1)).timestamp()) * 10**9
    os.utime(path, ns=(at, at))
