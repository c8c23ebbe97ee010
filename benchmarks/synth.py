"""Measure how fast studies are generated: python benchmarks/synth.py [--files N] [--preset tiny] [--workers 1 2] [--json FILE]

Three rows a number of processes: a preset with pixels, header-only files (`scale`), and, as the peer of the latter, one
process that does nothing but write the same bytes to the same paths. Times are of this machine; read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ospor_batch.stages.synth import synth

HEAD = 16_384  # a header-only file has no bytes beyond these but a hole; a display table takes half of them


def files_of(folder: Path) -> list[Path]:
    return [p for p in (folder / "archives").rglob("*") if p.is_file()]


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the wall, and of this process's own work."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy


def measured(
    name: str, folder: Path, took: tuple[float, float], *, workers: int, n_people: int | None = None
) -> dict[str, Any]:
    files = files_of(folder)
    seconds, busy = took
    on_disk = sum(p.stat().st_blocks * 512 for p in files) / 1e6
    said = {"work": name, "workers": workers, "files": len(files), "people": n_people, "mb": round(on_disk, 1)}
    said["cpu_s"] = round(busy, 2) if workers == 1 else None  # of one process; what the others did is not seen here
    return {**said, "seconds": round(seconds, 2), "files_s": round(len(files) / seconds), "mb_s": round(on_disk / seconds, 1)}


def bare(source: Path, target: Path) -> tuple[float, float]:
    """Seconds to write what source holds into target: contents are in memory before the clock starts."""
    held = []
    for path in files_of(source):
        with path.open("rb") as file:
            content = file.read(HEAD)
        held.append((target / path.relative_to(source), content.rstrip(b"\0"), path.stat().st_size))

    def write() -> None:
        folders = set()
        for path, content, size in held:
            if path.parent not in folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                folders.add(path.parent)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(handle, content)
            os.ftruncate(handle, size)
            os.close(handle)

    return timed(write)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000, help="header-only files")
    parser.add_argument("--preset", default="tiny", help="preset with pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for workers in given.workers:
            out = Path(name) / f"{given.preset}-{workers}"
            seen: list[int] = []
            took = timed(
                lambda out=out, workers=workers, seen=seen: synth(
                    out, preset=given.preset, workers=workers, progress=lambda _, total: seen.append(total)
                )
            )
            rows.append(measured(f"{given.preset}, with pixels", out, took, workers=workers, n_people=seen[-1]))
            shutil.rmtree(out)
            out = Path(name) / f"scale-{workers}"
            took = timed(lambda out=out, workers=workers: synth(out, preset="scale", n_files=given.files, workers=workers))
            rows.append(measured("scale, headers only", out, took, workers=workers))
            if workers == given.workers[0]:
                took = bare(out, Path(name) / "bare")
                rows.append(measured("peer: bare write of the same", Path(name) / "bare", took, workers=1))
            shutil.rmtree(out)
    peer = next(row for row in rows if row["work"].startswith("peer"))
    for row in rows:
        row["of_bare"] = round(row["files_s"] / peer["files_s"], 2) if row["work"].startswith("scale") else None
    print(f"{'work':30} {'proc':>4} {'files':>8} {'s':>8} {'cpu s':>8} {'files/s':>8} {'MB/s':>8} {'of bare':>8}")
    for row in rows:
        told = "" if row["of_bare"] is None else f"{row['of_bare']:.2f}"
        rates = f"{row['files_s']:8} {row['mb_s']:8} {told:>8}"
        print(f"{row['work']:30} {row['workers']:4} {row['files']:8} {row['seconds']:8} {row['cpu_s'] or '':>8} {rates}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
