"""A journal says what a process was at when it died; the watchdog ends a process that no Python code can reach."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ospor_batch.inference.journal import Journal, read_journal

# a regular expression that backtracks for minutes holds the interpreter lock all the time, as a hanging codec does
HANGING = """
import re, sys
from pathlib import Path
from ospor_batch.inference.journal import Journal
from ospor_batch.inference.watchdog import at_most
with Journal(Path(sys.argv[1])) as journal:
    with at_most(30, say_to=journal.fileno()), at_most(0.05, say_to=journal.fileno()):
        pass
    journal.begins(["quick"])
    journal.rests(["quick"])
    journal.begins(["endless"])
    with at_most(0.2, say_to=journal.fileno()):
        re.match(r"(a+)+$", "a" * 64 + "b")
"""


def test_what_was_begun_and_neither_rests_nor_is_kept_was_worked_on(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.begins(["a", "b", "c"])
        journal.rests(["a", "b"])
        journal.begins(["b"])
        journal.keeps(["a"])
    left = read_journal(tmp_path / "j")
    assert left is not None
    assert list(left.working) == ["c", "b"]
    assert abs(left.working["b"] - time.time()) < 60
    assert (left.kept, left.is_timed_out) == (frozenset("a"), False)
    assert read_journal(tmp_path / "never begun") is None


@given(cut=st.integers(min_value=0, max_value=80))
def test_a_torn_journal_is_read_up_to_its_last_whole_line(tmp_path_factory: object, cut: int) -> None:
    whole = b"begins a 1.000\nrests a\nbegins b 2.000\nkeeps a\nbegins c 3.000\nrests b\n"
    target = Path(f"/tmp/ospor-journal-{os.getpid()}")
    try:
        target.write_bytes(whole[:cut])
        left = read_journal(target)
    finally:
        target.unlink()
    n_lines = whole[:cut].count(b"\n")
    expected = [{}, {"a": 1.0}, {}, {"b": 2.0}, {"b": 2.0}, {"b": 2.0, "c": 3.0}, {"c": 3.0}][n_lines]
    assert left is not None
    assert (left.working, left.kept) == (expected, frozenset("a") if n_lines >= 4 else frozenset())


def test_a_process_that_hangs_in_compiled_code_is_ended_and_says_at_what(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", HANGING, str(tmp_path / "j")], timeout=30, check=False)
    assert ended.returncode == 1
    left = read_journal(tmp_path / "j")
    assert left is not None
    assert (list(left.working), left.is_timed_out) == (["endless"], True)
    assert "aaaa" not in (tmp_path / "j").read_text()  # a stack, no values
