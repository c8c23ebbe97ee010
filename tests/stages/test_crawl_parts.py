"""How a crawl cuts files into parts, and who may read the key."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ospor_batch.stages.crawl_parts import cut
from ospor_batch.stages.lent_key import borrowed, lent, mark_of

PATHS = [f"p{n // 200:04d}/IM{n % 200:06d}" for n in range(5000)]


@pytest.mark.parametrize("n", [0, 1, 7, 99, 5000])
def test_parts_hold_every_file_once_in_order_and_are_of_like_length(n: int) -> None:
    runs = cut(PATHS[:n], size=100)
    assert [path for run in runs for path in PATHS[:n][run]] == PATHS[:n]
    assert all(50 <= run.stop - run.start <= 150 for run in runs[:-1])


def test_a_new_name_moves_few_cuts() -> None:
    def parts(paths: list[str]) -> set[tuple[str, ...]]:
        return {tuple(paths[run]) for run in cut(paths, size=100)}

    before = parts(PATHS)
    after = parts(sorted([*PATHS, "p0012/IM000100a"]))
    assert len(before & after) > 0.7 * len(before)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="keys are lent on Linux only")
def test_a_lent_key_is_read_by_other_processes_of_the_user_until_it_is_taken_back() -> None:
    key = os.urandom(32)
    with lent(key) as place:
        assert place is not None
        assert borrowed(place, mark=mark_of(key)) == key
        assert borrowed(place, mark=mark_of(os.urandom(32))) is None
        assert stat.S_IMODE(Path(place).stat().st_mode) == 0o400
        told = subprocess.run([sys.executable, "-c", READ, place], capture_output=True, check=True)
        assert told.stdout == key
    assert borrowed(place, mark=mark_of(key)) is None
    assert borrowed(None, mark=mark_of(key)) is None


READ = "import sys; from pathlib import Path; sys.stdout.buffer.write(Path(sys.argv[1]).read_bytes())"
