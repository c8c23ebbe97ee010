"""An inference under way can be looked at from another process, and says which step is the slowest."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

from rich.console import Console

from ospor_batch.inference.journal import Journal
from ospor_batch.inference.shard import ShardReceipt
from ospor_batch.inference.timing import STEPS
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


def a_live(folder: Path) -> tuple[Live, Bar]:
    bar = Bar()
    live = Live(folder / PROGRESS, total=10, done=2, progress=bar, link="http://127.0.0.1:1/status", n_workers=2)
    live.begin()
    live.received(ShardReceipt("s", 4, 3, 1, {"decode_failed": 1}, SECONDS))
    return live, bar


def test_the_bar_is_told_counts_and_a_few_words(tmp_path: Path) -> None:
    live, bar = a_live(tmp_path)
    assert bar.told == [(2, 10), (6, 10)]
    assert bar.noted == "1 refused, slowest: decode"
    assert live.items_per_second > 0
    assert live.seconds_left is not None
    assert "4 series in" in live.said()
    assert "decode 3.0" in live.said()
    assert live.said().endswith("slowest step: decode")


def test_another_process_sees_it_run_and_end(tmp_path: Path) -> None:
    assert look(tmp_path) is None
    live, _ = a_live(tmp_path)
    live._tell(at_once=True)
    (tmp_path / "shards" / "key").mkdir(parents=True)
    with Journal(tmp_path / "shards" / "key" / "s.journal") as journal:
        journal.begins(["a", "b"])
        journal.rests(["a"])
        seen = look(tmp_path)
    assert seen is not None
    assert (seen.state, seen.total, seen.done, seen.n_working) == ("running", 10, 6, 1)
    assert (seen.rejects, seen.slowest) == ({"decode_failed": 1}, "decode")
    shown = io.StringIO()
    show_inference(seen, console=Console(file=shown, width=200))
    assert "inference running: 6 of 10 series" in shown.getvalue()
    assert "1 decode_failed" in shown.getvalue()
    assert "http://127.0.0.1:1/status" in shown.getvalue()
    live.end()
    assert getattr(look(tmp_path), "state", None) == "ended"


def test_one_whose_process_is_gone_has_stopped(tmp_path: Path) -> None:
    live, _ = a_live(tmp_path)
    live._tell(at_once=True)
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
    a_live(tmp_path)[0].end()
    assert str(tmp_path) not in (tmp_path / PROGRESS).read_text()
