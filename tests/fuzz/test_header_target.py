"""The fuzz target runs for a bounded time and finds nothing; `OSPOR_FUZZ_SECONDS` makes it longer."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = int(os.environ.get("OSPOR_FUZZ_SECONDS", "15"))
MOST_MB = 1024
LIMITS = ("-timeout=20", "-max_len=8192", "-print_final_stats=1")


def test_no_input_crashes_hangs_or_fills_memory(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: it has wheels for Linux and macOS only")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    # a process that is started begins with the peak of the one that starts it
    most = MOST_MB + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    limits = (f"-max_total_time={SECONDS}", "-seed=1", f"-rss_limit_mb={most}", *LIMITS)
    command = [sys.executable, "-m", "tests.fuzz.header_target", *limits]
    ran = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/", str(corpus)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "Done" in ran.stderr
