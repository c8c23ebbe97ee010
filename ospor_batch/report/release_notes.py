"""What is written beside the released tables: a README with the dictionary of columns, and the header that pooling reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ospor_batch.config import Study
from ospor_batch.contracts import contract
from ospor_batch.report.metrics import METRICS

HEADER_VERSION = 1
WITHHELD = "withheld"
README = """# Release of {name}, run {run_id}
{generated}{kept}
## Rules

- Counts of 1 to {largest_withheld} persons are withheld, and with them as many other cells as keep
  them uncertain by at least {smallest} over all sums that the tables print (audited by linear programs).
- A withheld cell is the word `{withheld}` in CSV and XLSX; in Parquet it is null. The column `{withheld}` names the
  withheld columns of each row, and `status` is `{withheld}` where the estimate is. An empty cell is not withheld: it is
  not defined, and `status_reason` says why.
- Counts are rounded to {rounding}
- A release is compared with the one before: what was withheld stays withheld, and no count is printed that moved by fewer
  than {smallest} persons unless counts are rounded.
- No identifiers, dates, paths, single persons' scores or values are in any file.
- Text that a spreadsheet would run as a formula begins with an apostrophe in CSV.

## Files

- `tables/`: each table as CSV (UTF-8, decimal point), Parquet, and together in `tables.xlsx`
- `figures/`: drawings of these tables as SVG, PNG and PDF
- `release.json`: what this release hangs on; `ospor-batch pool` reads it
- `checksums.txt`: SHA-256 of every file

## Tables

{listed}

Left out, since they hold single persons or small differences:

{absent}

## Columns

{columns}

## Metrics

{metrics}
"""


@dataclass(frozen=True)
class Noted:
    """What the README says of one released table."""

    name: str
    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    n_rows: int
    n_withheld: int


def header(study: Study, *, run: Mapping[str, str], threshold: pl.DataFrame, tables: Sequence[str]) -> dict[str, Any]:
    """What two releases must share to be pooled, by recipe: model, threshold, reference, window, criteria, contracts."""
    recipes = {}
    for recipe in study.recipes:
        rows = threshold.filter((pl.col("recipe") == recipe.key) & (pl.col("reference_id") == recipe.reference)).to_dicts()
        row = rows[0] if rows else {}
        recipes[recipe.key] = {
            "protocol": recipe.name,
            "reference_id": recipe.reference,
            "reference_digest": _digest(study.reference(recipe.reference).model_dump(mode="json")),
            "criteria_digest": _digest([c.model_dump(mode="json") for c in study.criteria_of(recipe)]),
            "model_digest": row.get("model_digest"),
            "threshold_id": row.get("threshold_id"),
            "window_days": study.match_of(recipe).window,
        }
    return {
        "release_version": HEADER_VERSION,
        "is_generated": study.study.is_generated,
        "run_id": run["run_id"],
        "code_version": run["code_version"],
        "target": study.analysis.target,
        "ppv_prevalence": study.analysis.ppv_prevalence,
        "standard_population": study.tables.standard_population,
        "smallest_cell": study.tables.smallest_cell,
        "round_to": study.tables.round_to,
        "n_centers": len(study.centers),
        "recipes": recipes,
        "contracts": {name: contract(name).digest for name in sorted(set(tables) - {"rejects_summary"})},
    }


def readme(study: Study, tables: Sequence[Noted], *, left_out: Mapping[str, str], run_id: str, held: str | None) -> str:
    """README of the release in Markdown: rules, tables, and every column with its unit and meaning."""
    generated = "\n**Generated data: proves the chain, no clinical meaning.**\n" if study.study.is_generated else ""
    kept = (
        f"\n**These are the tables of run {held} again.** Since then some counts moved by fewer than "
        f"{study.tables.smallest_cell} persons; two versions of a table would give such counts away by subtraction.\n"
        if held
        else ""
    )
    listed = "\n".join(f"- `{t.name}`: {_title(t.name)}; {t.n_rows} rows, {t.n_withheld} cells withheld" for t in tables)
    absent = "\n".join(f"- `{name}`: {why}" for name, why in left_out.items())
    return README.format(
        name=study.study.name,
        run_id=run_id,
        generated=generated,
        kept=kept,
        largest_withheld=max(0, study.tables.smallest_cell - 1),
        smallest=study.tables.smallest_cell,
        rounding=f"{study.tables.round_to}{_about_rounding(study.tables.round_to)}",
        withheld=WITHHELD,
        listed=listed,
        absent=absent,
        columns=_dictionary(tables),
        metrics=_metrics(tables),
    )


def _about_rounding(base: int) -> str:
    if base == 1:
        return ", so they are exact."
    return "; shares and their intervals are built anew from rounded counts, so sums may differ by rounding."


def _title(name: str) -> str:
    return "What was refused and why, all centers together" if name == "rejects_summary" else contract(name).title


def _dictionary(tables: Sequence[Noted]) -> str:
    seen: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for table in tables:
        source = contract("reject_count" if table.name == "rejects_summary" else table.name)
        for field in source.fields:
            if field.name in table.columns:
                seen.setdefault((field.name, field.description), (field.unit or "", []))[1].append(table.name)
    lines = ["| Column | Unit | Meaning | Tables |", "|---|---|---|---|"]
    for (name, said), (unit, where) in sorted(seen.items()):
        lines.append(f"| `{name}` | {unit} | {said.replace('|', '/')} | {', '.join(where)} |")
    lines.append(f"| `{WITHHELD}` | | Columns of the row that are withheld, joined by semicolons; empty when none. | all |")
    return "\n".join(lines)


def _metrics(tables: Sequence[Noted]) -> str:
    used = {metric for table in tables for metric in table.metrics}
    lines = ["| Metric | Meaning |", "|---|---|"]
    lines += [f"| `{name}` | {how.explains} |" for name, how in METRICS.items() if name in used]
    return "\n".join(lines)


def header_text(body: Mapping[str, Any]) -> str:
    """The header as JSON with sorted keys."""
    return json.dumps(body, indent=2, sort_keys=True) + "\n"


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
