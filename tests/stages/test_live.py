"""An inference under way can be looked at from another process, and says which step is the slowest."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from ospor_batch import screen
from ospor_batch.errors import ClusterError
from ospor_batch.inference.journal import Journal
from ospor_batch.inference.shard import ShardReceipt
from ospor_batch.inference.timing import STEPS
from ospor_batch.plan import Step
from ospor_batch.screen import show_inference
from ospor_batch.stages.live import PROGRESS, Live, look

SECONDS = {**dict.fromkeys(STEPS, 0.0), "decode": 3.0, "starved": 2.0, "compute": 1.0}


class Bar:
    """A progress bar that also shows words."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.noted = ""

    def __call__(self, done: int, total: int) -> None:
        self.told.append((done, total))

    def note(self, text: str) -> None:
        self.noted = text


@contextlib.contextmanager
def a_live(folder: Path) -> Iterator[tuple[Live, Bar]]:
    bar = Bar()
    live = Live(folder / PROGRESS, total=10, done=2, progress=bar, link="http://127.0.0.1:1/status", n_workers=2)
    with live.under_way():
        live.received(ShardReceipt("s", 4, 3, 1, {"decode_failed": 1}, SECONDS))
        live._tell(at_once=True)
        yield live, bar


def test_the_bar_is_told_counts_and_a_few_words(tmp_path: Path) -> None:
    with a_live(tmp_path) as (live, bar):
        pass
    assert (bar.told[0], bar.told[-1]) == ((2, 10), (6, 10))
    assert re.fullmatch(r"1 refused, devices busy \d+ %, slowest: decode", bar.noted)
    assert live.items_per_second > 0
    assert live.seconds_left is not None
    assert "4 series in" in live.said()
    assert "decode 3.0" in live.said()
    assert live.said().endswith("slowest step: decode")


def test_another_process_sees_it_run_and_end(tmp_path: Path) -> None:
    assert look(tmp_path) is None
    with a_live(tmp_path):
        (tmp_path / "shards" / "key").mkdir(parents=True)
        with Journal(tmp_path / "shards" / "key" / "s.journal") as journal:
            journal.begins(["a", "b"])
            journal.rests(["a"])
            seen = look(tmp_path)
    assert seen is not None
    assert (seen.state, seen.total, seen.done, seen.n_working) == ("running", 10, 6, 1)
    assert (seen.rejects, seen.slowest, list(seen.seconds)) == ({"decode_failed": 1}, "decode", list(STEPS))
    shown = io.StringIO()
    show_inference(seen, console=Console(file=shown, width=200))
    assert "inference running: 6 of 10 series" in shown.getvalue()
    assert "1 decode_failed" in shown.getvalue()
    assert "http://127.0.0.1:1/status" in shown.getvalue()
    assert getattr(look(tmp_path), "state", None) == "ended"


def test_it_lives_while_no_shard_ends_and_says_that_there_is_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ospor_batch.stages.live.BEAT_SECONDS", 0.02)
    with a_live(tmp_path) as (live, bar):
        first = json.loads((tmp_path / PROGRESS).read_text())["updated_at"]
        live.present = lambda: 0
        until = time.monotonic() + 20
        while bar.noted != "no worker yet":
            assert time.monotonic() < until
            time.sleep(0.02)
        seen = look(tmp_path)
        assert json.loads((tmp_path / PROGRESS).read_text())["updated_at"] > first
    assert seen is not None
    assert seen.n_present == 0
    shown = io.StringIO()
    show_inference(seen, console=Console(file=shown, width=200))
    assert "0 of 2 worker(s) there" in shown.getvalue()


def test_where_there_is_no_terminal_a_line_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "LINE_SECONDS", 0.0)
    told = screen.Screen(quiet=False).begin(Step("infer"))
    told(2, 10)
    told.note("1 refused")  # type: ignore[attr-defined]
    time.sleep(0.01)
    told(6, 10)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "infer: 2 of 10, 0.0/s"
    assert re.fullmatch(r"infer: 6 of 10, \d+/s, 0 s left 1 refused", second)
    screen.Screen(quiet=True).begin(Step("infer"))(2, 10)
    assert capsys.readouterr().out == ""


def test_an_error_ends_it_as_stopped(tmp_path: Path) -> None:
    with pytest.raises(ClusterError), a_live(tmp_path):
        raise ClusterError("no worker")
    assert getattr(look(tmp_path), "state", None) == "stopped"


def test_one_whose_process_is_gone_has_stopped(tmp_path: Path) -> None:
    with a_live(tmp_path):
        body = json.loads((tmp_path / PROGRESS).read_text())
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / PROGRESS).write_text(json.dumps({**body, "pid": gone.pid}))
    assert getattr(look(tmp_path), "state", None) == "stopped"
    (tmp_path / PROGRESS).write_text(json.dumps({**body, "host": "elsewhere", "updated_at": body["updated_at"] - 3600}))
    assert getattr(look(tmp_path), "state", None) == "stopped"
    (tmp_path / PROGRESS).write_text("{")
    assert look(tmp_path) is None


def test_no_file_is_named_in_what_is_shown(tmp_path: Path) -> None:
    with a_live(tmp_path):
        pass
    assert str(tmp_path) not in (tmp_path / PROGRESS).read_text()
