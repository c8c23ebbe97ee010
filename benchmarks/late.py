"""A crawl of a share that answers late, against one look after the other.

python benchmarks/late.py --size 4000 --delay-us 500 --json FILE

Linux and a C compiler are needed: every look at the archive waits, whatever process looks (benchmarks/late.c).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.sweep import file_of, template

HERE = Path(__file__).resolve().parent
PER_FOLDER = 8
STUDY = """
[study]
name = "late"
pseudonym_key = { env = "OSPOR_KEY" }
[[centers]]
name = "north"
archives = ["archive"]
[[references]]
id = "dxa"
standard = "dxa_who"
[[recipes]]
name = "mean_hu"
reference = "dxa"
threshold = { fixed = 110 }
[compute.cpu]
cluster = "in_line"
"""
LISTED = "import os\nfor at, _, names in os.walk(os.path.abspath('archive')):\n for n in names: os.stat(os.path.join(at, n))"
READ = LISTED + "; open(os.path.join(at, n), 'rb').read(8192)"
CRAWL = "import sys; sys.argv = ['ospor-batch', 'crawl', 'study.toml']; from ospor_batch.cli import main; main()"


def said(code: str, *, folder: Path, env: dict[str, str]) -> tuple[float, str]:
    """How many seconds a process took, and what it printed."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, done.stdout


def measure(size: int, delay_us: int, folder: Path) -> list[dict[str, object]]:
    pattern = template()
    for number in range(size):
        path = folder / "archive" / f"p{number // PER_FOLDER // 2:06d}" / f"s{number // PER_FOLDER % 2}" / f"{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file_of(pattern, number))
    (folder / "study.toml").write_text(STUDY)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", folder / "late.so", HERE / "late.c", "-ldl"], check=True)
    env = os.environ | {"OSPOR_KEY": "benchmark-key-0123456789", "PYTHONPATH": str(HERE.parent)}
    env |= {"LD_PRELOAD": str(folder / "late.so"), "LATE_US": str(delay_us), "LATE_AT": str(folder / "archive")}
    rows: list[dict[str, object]] = []
    for what, peer in (("first crawl", READ), ("nothing new", LISTED)):
        peer_s = said(peer, folder=folder, env=env)[0]
        own_s = float(said(CRAWL, folder=folder, env=env)[1].split()[-2])  # as the stage tells it, without the start of Python
        rows.append({"what": what, "files": size, "delay_us": delay_us, "one_by_one_s": peer_s, "s": own_s})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--delay-us", type=int, default=500)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("OSPOR_BENCHMARK_DIR")) as folder:
        rows = measure(told.size, told.delay_us, Path(folder))
    for row in rows:
        print(f"{row['what']:<12} {row['files']} files, {row['delay_us']} us a look: "
              f"{row['s']:.2f} s, one look after the other {row['one_by_one_s']:.2f} s")  # fmt: skip
    if told.json:
        told.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
