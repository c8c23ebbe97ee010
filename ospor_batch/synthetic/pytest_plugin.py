"""Fixtures for other people's tests: generated studies, archives and single series with every vendor and fault.

Installed with the package, pytest finds it by itself. Everything is made in a temporary folder, once per session, from a
fixed seed; nothing in it is clinical.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ospor_batch.synthetic.population import Person

VENDORS = ("ge", "siemens", "philips", "canon")


@dataclass(frozen=True)
class GeneratedSeries:
    """One person's files in a folder of their own.

    expected: for each file, by path below the folder, the reject that a crawl must make of it; null for an instance.
    """

    folder: Path
    person: Person
    expected: dict[str, str | None]

    @property
    def files(self) -> list[Path]:
        """All files, sorted."""
        return sorted(self.folder / path for path in self.expected)


def fault_names() -> tuple[str, ...]:
    """The faults that `ospor_series` can plant."""
    from ospor_batch.synthetic.faults import FAULTS

    return tuple(fault.name for fault in FAULTS)


@pytest.fixture(scope="session")
def ospor_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study.toml of a tiny generated study with every fault planted; its truth lies beside it."""
    from ospor_batch.synthetic.archive import write_study

    return write_study(tmp_path_factory.mktemp("ospor_study") / "tiny", preset="tiny")


@pytest.fixture(scope="session")
def ospor_archive(ospor_study: Path) -> Path:
    """The folder that holds the archives of the four centers, one folder each."""
    return ospor_study.parent / "archives"


@pytest.fixture(scope="session")
def ospor_series(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., GeneratedSeries]:
    """A function (vendor, fault="none", matrix=64) that writes the CT of one person and what lies beside it."""
    made: dict[tuple[str, str, int], GeneratedSeries] = {}

    def make(vendor: str, *, fault: str = "none", matrix: int = 64) -> GeneratedSeries:
        key = (vendor, fault, matrix)
        if key not in made:
            made[key] = _write(tmp_path_factory.mktemp("ospor_series"), vendor, fault=fault, matrix=matrix)
        return made[key]

    return make


def _write(folder: Path, vendor: str, *, fault: str, matrix: int) -> GeneratedSeries:
    from ospor_batch.synthetic.ct import Sampling
    from ospor_batch.synthetic.patient_files import Detail, patient_files

    person = _person(vendor, fault)
    expected: dict[str, str | None] = {}
    for file in patient_files(person, detail=Detail(Sampling(matrix), matrix)):
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        expected[file.path] = file.refusal
    return GeneratedSeries(folder, person, expected)


def _person(vendor: str, fault: str) -> Person:
    """A person of the center that carries the fault, imaged on the vendor's scanner."""
    from ospor_batch.synthetic.faults import FAULTS
    from ospor_batch.synthetic.population import Rates, people

    if vendor not in VENDORS:
        raise pytest.UsageError(f"no vendor {vendor!r}; there are {', '.join(VENDORS)}")
    if fault == "none":
        (person,) = people("north", range(1, 2), seed=1, night=1, rates=Rates(0, 0, 0, 0), is_planted=False)
        return replace(person, vendor=vendor)
    planted = [known for known in FAULTS if known.name == fault]
    if not planted:
        raise pytest.UsageError(f"no fault {fault!r}; there are {', '.join(fault_names())}")
    center = planted[0].center
    people_there = people(center, range(1, 40), seed=1, night=1, rates=Rates(0, 0, 0, 0))
    return replace(next(person for person in people_there if person.fault == fault), vendor=vendor)
