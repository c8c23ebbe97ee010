"""Pool the releases of centers that cannot share rows; nothing but release/ folders is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.contracts.table import conform, schema_of
from ospor_batch.errors import ContractError, StudyError
from ospor_batch.evaluation.pooling import Declared, Part, pooled_rows
from ospor_batch.stages.evaluate import csv_text
from ospor_batch.store import write_part, write_text

# of a recipe, what must be the same in every release, and how it is called
MUST_AGREE = {
    "protocol": "protocol", "model_digest": "model", "threshold_id": "locked threshold",
    "reference_digest": "reference standard", "criteria_digest": "criteria", "window_days": "window",
}  # fmt: skip
ALIKE = {
    "release_version": "version of the release",
    "target": "target condition",
    "standard_population": "standard population",
}
FEWEST = 2
WARNING = (
    "A person who is in two releases counts twice: duplicates across centers cannot be seen in aggregates. "
    "Estimates by summed_counts, summed_moments and summed_strata are those of the pooled rows when counts are not rounded "
    "and nothing is withheld; summed_histograms takes scores within a bin as ties."
)


@dataclass(frozen=True)
class Pooled:
    """Where the pooled table lies, its rows, and what a reader must know."""

    table: Path
    rows: pl.DataFrame
    warning: str


def pool(folders: Sequence[Path], *, out: Path) -> Pooled:
    """Write pooled.parquet, pooled.csv and README.md; StudyError names every difference between the releases."""
    if len(folders) < FEWEST:
        raise StudyError("pooling needs at least two releases")
    headers = [_header(folder) for folder in folders]
    _refuse_twice(folders)
    recipes = sorted(set.intersection(*(set(header["recipes"]) for header in headers)))
    if not recipes:
        raise StudyError("the releases have no recipe in common")
    _refuse_differences(folders, headers, recipes)
    parts = [_part(folder, header) for folder, header in zip(folders, headers, strict=True)]
    rows: list[dict[str, Any]] = []
    for recipe in recipes:
        said = headers[0]["recipes"][recipe]
        rows += pooled_rows(parts, _declared(recipe, said, headers[0]))
    frame = conform(pl.DataFrame(rows, schema=schema_of("pooled")), "pooled").sort(contract("pooled").primary_key)
    target = out / "pooled.parquet"
    write_part(frame, "pooled", target=target)
    write_text(csv_text(frame), target=out / "pooled.csv")
    write_text(_readme(parts, headers), target=out / "README.md")
    return Pooled(target, frame, WARNING)


def _declared(recipe: str, said: dict[str, Any], header: dict[str, Any]) -> Declared:
    return Declared(
        recipe=recipe,
        reference_id=said["reference_id"],
        target=header["target"],
        model_digest=said["model_digest"],
        threshold_id=said["threshold_id"],
        ppv_prevalence=header["ppv_prevalence"],
        standard_population=header["standard_population"],
    )


def _header(folder: Path) -> dict[str, Any]:
    path = folder / "release.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{folder}: no release.json; give the release/ folder of a run") from None
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read ({type(error).__name__})") from None
    _refuse_altered(folder)
    return found


def _refuse_altered(folder: Path) -> None:
    """ContractError when a file is not the one that was released."""
    listed = folder / "checksums.txt"
    if not listed.is_file():
        raise ContractError(f"{folder}: no checksums.txt; the release is not whole")
    for line in listed.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ContractError(f"{folder}: {name} is missing or was altered after the release")


def _refuse_twice(folders: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for folder in folders:
        digest = hashlib.sha256((folder / "checksums.txt").read_bytes()).hexdigest()
        if digest in seen:
            raise StudyError(f"{folder} and {seen[digest]} are the same release")
        seen[digest] = folder


def _refuse_differences(folders: Sequence[Path], headers: Sequence[dict[str, Any]], recipes: Sequence[str]) -> None:
    """StudyError that lists everything in which the releases differ and must not."""
    first, faults = headers[0], list[str]()
    for folder, header in zip(folders[1:], headers[1:], strict=True):
        said = [(called, header.get(key), first.get(key)) for key, called in ALIKE.items()]
        for recipe in recipes:
            mine, other = header["recipes"][recipe], first["recipes"][recipe]
            said += [(f"{recipe}: {called}", mine.get(key), other.get(key)) for key, called in MUST_AGREE.items()]
        faults += [f"{folder}: {what} is {mine}, in {folders[0]} it is {other}" for what, mine, other in said if mine != other]
        names = sorted(set(first["contracts"]) | set(header["contracts"]))
        changed = [name for name in names if header["contracts"].get(name) != first["contracts"].get(name)]
        faults += [f"{folder}: the contract of {name} is another one than in {folders[0]}" for name in changed]
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise StudyError(f"the releases must not be pooled, {len(faults)} differences:\n{listed}")


def _part(folder: Path, header: dict[str, Any]) -> Part:
    names = ("performance", "prevalence", "age_sex", "score_histogram", "agreement_sum")
    tables = {name: pl.read_parquet(folder / "tables" / f"{name}.parquet") for name in names}
    return Part(f"release {header['run_id']}", tables, int(header["round_to"]))


def _readme(parts: Sequence[Part], headers: Sequence[dict[str, Any]]) -> str:
    listed = "\n".join(
        f"- {part.name}: {head['n_centers']} centers, smallest cell {head['smallest_cell']}, rounded to {head['round_to']}"
        for part, head in zip(parts, headers, strict=True)
    )
    generated = "\nGenerated data: proves the chain, no clinical meaning.\n" if any(h["is_generated"] for h in headers) else ""
    return f"# Pooled releases\n{generated}\n{WARNING}\n\n{listed}\n"
