"""Resolve pyproject.toml in a new environment and write requirements.lock; make, CI and Docker install with it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# dask and distributed are held at the release that dask-cuda 26.10 accepts; torch at the one that the tests ran with
HELD = ["torch==2.13.0", "dask==2026.7.1", "distributed==2026.7.1"]
HEAD = """# Exact versions that make, CI and Docker install with. Written by `make lock`; do not edit.
# torch 2.13.0: where no index with CPU builds is set, pip takes the CUDA build, which also runs without a GPU.
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", *HELD], check=True)
        subprocess.run([*pip, "install", "--quiet", f"{ROOT}[dev]", *HELD], check=True)
        subprocess.run([*pip, "check"], check=True)
        frozen = subprocess.run([*pip, "freeze", "--exclude", "ospor-batch"], check=True, capture_output=True, text=True)
    lines = sorted((line.split("+cpu")[0] for line in frozen.stdout.splitlines() if "@" not in line), key=str.lower)
    torch = [line for line in frozen.stdout.splitlines() if line.startswith("torch @")]
    lines += ["torch==2.13.0"] if torch else []
    (ROOT / "requirements.lock").write_text(HEAD + "\n".join(sorted(set(lines), key=str.lower)) + "\n")


if __name__ == "__main__":
    main()
