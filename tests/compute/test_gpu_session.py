"""The session on a GPU measures nothing where there is none: figures of a CPU must not pass for those of a device."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

# a machine that has every package, and whose torch sees no GPU; what a step would run is written down
PYTHON = """#!/bin/sh
case "$1" in
-) ;;
-c) echo {sees} ;;
*) echo "$@" >> "{folder}/ran" ;;
esac
"""


@pytest.mark.parametrize(
    ("sees", "dry_run", "ran"), [("no", "", []), ("yes", "", ["cuda"]), ("no", "cpu", ["cpu"])], ids=["none", "gpu", "dry run"]
)
def test_without_a_gpu_nothing_is_measured(tmp_path: Path, sees: str, dry_run: str, ran: list[str]) -> None:
    python = tmp_path / "python"
    python.write_text(PYTHON.format(sees=sees, folder=tmp_path))
    python.chmod(0o755)
    said = subprocess.run(
        ["bash", "benchmarks/gpu_session.sh", "inference", "feed"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHON": str(python), "OUT": str(tmp_path / "out"), "OSPOR_DRY_RUN": dry_run},
    )  # fmt: skip
    assert said.returncode == (0 if ran else 3)
    assert ("inference: skipped, since torch sees no GPU here" in said.stdout) is (not ran)
    begun = (tmp_path / "ran").read_text().splitlines() if (tmp_path / "ran").exists() else []
    assert [line.partition("--device ")[2].split()[0] for line in begun if "inference.py" in line] == ran
    assert len(begun) == 2 * len(ran)
