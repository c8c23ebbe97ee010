"""The prediction store of a spec as the stage sees it: what is finished, what finishes nothing, small parts made few."""

from __future__ import annotations

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.contracts.table import conform, empty
from ospor_batch.inference.parts import PARTS, name_of
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.runs import Run
from ospor_batch.store import write_rows

MOST_PARTS = 1000  # of one kind, above which they are merged: each costs a millisecond to open
DONE = {"prediction": "item_digest", "reject": "item_key"}


def clear(run: Run, spec: PredictorSpec) -> None:
    """Throw away what finishes nothing: transient rejects, and what a killed worker left unfinished."""
    folder = run.predictions / spec.key
    for stale in [*folder.glob("reject_transient-*.parquet"), *folder.glob(".*.unfinished")]:
        stale.unlink(missing_ok=True)


def stored(part: str, run: Run, spec: PredictorSpec) -> pl.DataFrame:
    """All rows of one kind of part."""
    files = sorted((run.predictions / spec.key).glob(f"{part}-*.parquet"))
    name = PARTS[part]
    return pl.concat([empty(name), *(conform(pl.read_parquet(file), name) for file in files)])


def finished(run: Run, spec: PredictorSpec) -> pl.DataFrame:
    """The column item_digest of what has a prediction or a lasting reject."""
    found = [pl.DataFrame(schema={"item_digest": pl.String})]
    for part, key in DONE.items():
        files = (run.predictions / spec.key).glob(f"{part}-*.parquet")
        found += [pl.read_parquet(file, columns=[key]).rename({key: "item_digest"}) for file in files]
    return pl.concat(found).unique()


def forget(run: Run, spec: PredictorSpec, *, items: pl.Series) -> None:
    """Take these items out of the store, so that they are computed again."""
    gone = items.implode()
    for part, name in PARTS.items():
        key = "item_key" if name == "reject" else "item_digest"
        for file in sorted((run.predictions / spec.key).glob(f"{part}-*.parquet")):
            rows = pl.read_parquet(file)
            kept = rows.filter(~pl.col(key).is_in(gone))
            if not kept.height:
                file.unlink()
            elif kept.height < rows.height:
                write_rows(kept, target=file, metadata=_stamp(name, spec))


def merge(run: Run, spec: PredictorSpec) -> None:
    """Make many parts of a kind one; killed in between, rows stand twice and are taken once."""
    for part, name in PARTS.items():
        files = sorted((run.predictions / spec.key).glob(f"{part}-*.parquet"))
        if len(files) > MOST_PARTS:
            rows = stored(part, run, spec).unique().sort(pl.all())
            key = "item_key" if name == "reject" else "item_digest"
            target = run.predictions / spec.key / f"{part}-{name_of(rows[key].unique())}.parquet"
            write_rows(rows, target=target, metadata=_stamp(name, spec))
            for file in files:
                if file != target:
                    file.unlink()


def _stamp(name: str, spec: PredictorSpec) -> dict[str, str]:
    return contract(name).stamp(predictor=spec.predictor, prediction_key=spec.key)
