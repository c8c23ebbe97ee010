"""Match series with labels against the best DuckDB query for the same result: python benchmarks/match.py [--series N]

Both read two Parquet files and write every candidate pair inside the window with its rank, whether it is the match and
what it lost by, compressed with zstd as the parts of a run are; each runs in a process of its own, so that peak memory is
its own. The results are compared row by row.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

BEFORE, AFTER = 180, 180
SEED = 20220101
# the tie rule of the matcher in the words of SQL; reasons as in the candidate contract
QUERY = """
COPY (
  WITH pairs AS (
    SELECT s.center, s.patient_key, s.study_key, s.series_key, l.label_key, s.image_date,
           date_diff('day', s.image_date, l.label_date) AS gap_days
    FROM read_parquet('{series}') s JOIN read_parquet('{labels}') l
      ON s.center = l.center AND s.patient_key = l.patient_key
    WHERE date_diff('day', s.image_date, l.label_date) BETWEEN -{before} AND {after}
  ), ranked AS (
    SELECT *, row_number() OVER w AS candidate_rank,
           first_value(abs(gap_days)) OVER w AS best_gap, first_value(gap_days < 0) OVER w AS best_side,
           first_value(image_date) OVER w AS best_date, first_value(series_key) OVER w AS best_series,
           first_value(label_key) OVER w AS best_label
    FROM pairs
    WINDOW w AS (PARTITION BY center, patient_key ORDER BY abs(gap_days), gap_days < 0, image_date, series_key, label_key)
  )
  SELECT center, patient_key, study_key, series_key, label_key, gap_days, candidate_rank, candidate_rank = 1 AS is_match,
         CASE WHEN abs(gap_days) <> best_gap THEN 'larger_gap' WHEN (gap_days < 0) <> best_side THEN 'label_before_image'
              WHEN image_date <> best_date THEN 'later_image' WHEN series_key <> best_series THEN 'later_image_key'
              WHEN label_key <> best_label THEN 'later_label_key' END AS lost_by
  FROM ranked
) TO '{out}' (FORMAT parquet, COMPRESSION zstd)
"""


def made(folder: Path, *, n_series: int, n_labels: int) -> None:
    """Series and labels of the same people: one in three imaged people is labelled, some often; keys as in the catalog."""
    random = np.random.default_rng(SEED)
    n_people = max(n_series // 2, 1)
    keys = pl.Series([f"{i:032x}" for i in random.permutation(n_people)])
    imaged = random.integers(0, n_people, n_series)
    labelled = random.integers(0, max(n_people // 3, 1), n_labels)

    def dates(n: int) -> pl.Series:
        return pl.Series(random.integers(16_000, 19_650, n).astype(np.int32)).cast(pl.Date)

    def numbered(n: int, salt: int) -> pl.Series:
        return pl.Series([f"{(i * 2_654_435_761 + salt) % (1 << 40):032x}" for i in range(n)])

    centers = pl.Series(["north", "south", "east", "west"])
    center_of = random.integers(0, 4, n_people)
    series = pl.DataFrame({
        "center": centers[center_of[imaged]], "patient_key": keys[imaged], "study_key": numbered(n_series, 1),
        "series_key": numbered(n_series, 2), "image_date": dates(n_series),
    })  # fmt: skip
    labels = pl.DataFrame({
        "center": centers[center_of[labelled]], "patient_key": keys[labelled], "label_key": numbered(n_labels, 3),
        "label_date": dates(n_labels),
    })  # fmt: skip
    series.write_parquet(folder / "series.parquet")
    labels.write_parquet(folder / "labels.parquet")


def ours(folder: Path) -> None:
    from ospor_batch.cohort.match import rank_pairs
    from ospor_batch.cohort.pairing import pair

    series, labels = pl.scan_parquet(folder / "series.parquet"), pl.scan_parquet(folder / "labels.parquet")
    inside = pair(series, labels, within=(BEFORE, AFTER))
    ranked = rank_pairs(inside, index_series="nearest")
    columns = [
        "center",
        "patient_key",
        "study_key",
        "series_key",
        "label_key",
        "gap_days",
        "candidate_rank",
        "is_match",
        "lost_by",
    ]
    ranked.select(columns).write_parquet(folder / "ours.parquet")


def duckdb(folder: Path) -> None:
    import duckdb as peer

    names = {"series": folder / "series.parquet", "labels": folder / "labels.parquet", "out": folder / "duckdb.parquet"}
    peer.sql(QUERY.format(before=BEFORE, after=AFTER, **names))


def measured(side: str, folder: Path) -> dict[str, float]:
    """Seconds and peak MiB of one side in a fresh process, imports left out of the time and not of the memory."""
    command = [sys.executable, str(Path(__file__).resolve()), "--side", side, "--folder", str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parent.parent)
    found: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    return found


def compared(folder: Path) -> int:
    """Rows of the result, after both were found to be the same."""
    key = ["series_key", "label_key"]
    mine = pl.read_parquet(folder / "ours.parquet").sort(key)
    theirs = pl.read_parquet(folder / "duckdb.parquet").select(
        pl.col(name).cast(dtype) for name, dtype in mine.schema.items()
    ).sort(key)  # fmt: skip
    if not mine.equals(theirs):
        raise SystemExit(f"the results differ: {mine.height} rows of ours, {theirs.height} of DuckDB's")
    return mine.height


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=200_000)
    parser.add_argument("--labels", type=int, default=None, help="default: a fifth of the series")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--side", choices=["ours", "duckdb"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        _one_side(given.side, given.folder)
        return
    n_labels = given.labels or max(given.series // 5, 1)
    with tempfile.TemporaryDirectory() as made_in:
        folder = Path(made_in)
        made(folder, n_series=given.series, n_labels=n_labels)
        # by turns, so that a busy minute of the machine falls on both; the best round counts
        rounds = [{side: measured(side, folder) for side in ("ours", "duckdb")} for _ in range(given.rounds)]
        n_rows = compared(folder)
    best = {s: {m: min(r[s][m] for r in rounds) for m in ("seconds", "cpu_seconds", "peak_mib")} for s in ("ours", "duckdb")}
    _told(best, given.series, n_labels, n_rows, given.json)


def _one_side(side: str, folder: Path) -> None:
    from ospor_batch.cohort import match as _  # noqa: F401 -- loaded before the clock starts

    if side == "duckdb":
        import duckdb as _peer  # noqa: F401
    began, worked = time.perf_counter(), time.process_time()
    {"ours": ours, "duckdb": duckdb}[side](folder)
    seconds = time.perf_counter() - began
    cpu = time.process_time() - worked
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_mib": _peak_mib()}))


def _peak_mib() -> float:
    """Peak resident memory of this very program; getrusage would tell the parent's, which exec hands down."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def _told(best: dict[str, dict[str, float]], n_series: int, n_labels: int, n_rows: int, target: Path | None) -> None:
    body: dict[str, Any] = {"n_series": n_series, "n_labels": n_labels, "n_candidates": n_rows, **best}
    print(f"{n_series} series x {n_labels} labels, {n_rows} candidates, results equal row by row")
    print(f"{'':10} {'ours':>10} {'DuckDB':>10} {'ratio':>8} {'limit':>8}")
    for measure, unit in (("seconds", "s"), ("cpu_seconds", "CPU s"), ("peak_mib", "MiB")):
        mine, peer = best["ours"][measure], best["duckdb"][measure]
        body[f"ratio_{measure}"] = mine / peer
        print(f"{unit:10} {mine:10.2f} {peer:10.2f} {mine / peer:8.2f} {'<= 1':>8}")
    if target is not None:
        target.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
