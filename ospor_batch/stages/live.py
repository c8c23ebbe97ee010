"""What an inference under way says of itself on disk, for `status` in another terminal and for the last line of the stage."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ospor_batch.errors import OsporError
from ospor_batch.inference.journal import read_journal
from ospor_batch.inference.shard import ShardReceipt
from ospor_batch.inference.timing import STEPS, bottleneck, summed
from ospor_batch.stages.summary import Noting, Progress

PROGRESS = "inference.json"
EVERY_SECONDS = 1.0
BEAT_SECONDS = 5.0  # between two signs of life while no shard ends
WINDOW_SECONDS = 120.0  # over which the rate is taken: shards end in lumps
SILENT_SECONDS = 120.0  # many signs of life: whoever wrote last on another machine is taken for gone


@dataclass
class Live:
    """How far inference is; every change is told to the progress bar and, at most once a second, to the disk.

    total, done: items, those of earlier runs included. rejects: of this run so far, by reason. seconds: by step.
    present: asked how many workers there are now.
    """

    file: Path
    total: int
    done: int
    progress: Progress | None = None
    link: str | None = None
    n_workers: int = 1
    present: Callable[[], int] | None = None
    n_computed: int = 0
    n_deaths: int = 0
    n_present: int | None = None
    rejects: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    started_at: float = field(default_factory=time.time)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)
    _written: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """Tell what earlier runs finished, then that this one lives, and how it ended."""
        self._recent.append((time.time(), self.done))
        self._tell(at_once=True)
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(over,), name="ospor-live", daemon=True)
        beat.start()
        state = "stopped"
        try:
            yield
            state = "ended"
        finally:
            over.set()
            beat.join(timeout=1.0)  # it may wait for a scheduler that does not answer
            self._write(state)

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(BEAT_SECONDS):
            # that the cluster is gone or closes is for the one to say who waits for its answer
            with contextlib.suppress(OsporError, OSError, RuntimeError):
                self.n_present = None if self.present is None else self.present()
            if over.is_set():
                return
            self._write("running")
            bar: object = self.progress
            if self.n_present == 0 and isinstance(bar, Noting) and self.progress is not None:
                bar.note("no worker yet")
                self.progress(self.done, self.total)

    def received(self, receipt: ShardReceipt) -> None:
        """Count a shard that is done."""
        self.rejects.update(receipt.reasons)
        self.seconds = summed([self.seconds, receipt.seconds])
        self.more(receipt.n_items)

    def more(self, n_items: int) -> None:
        """Count items that are durable."""
        self.done += n_items
        self.n_computed += n_items
        self._recent.append((time.time(), self.done))
        while len(self._recent) > 2 and self._recent[0][0] < time.time() - WINDOW_SECONDS:
            self._recent.popleft()
        self._tell(at_once=False)

    @property
    def items_per_second(self) -> float:
        (since, done), (_, now_done) = self._recent[0], self._recent[-1]
        return (now_done - done) / max(time.time() - since, 1e-3)

    @property
    def seconds_left(self) -> float | None:
        rate = self.items_per_second
        return (self.total - self.done) / rate if rate > 0 else None

    @property
    def slowest(self) -> str | None:
        """The step that holds the others up; null before the first shard ended."""
        return bottleneck(self.seconds) if any(self.seconds.values()) else None

    @property
    def busy_share(self) -> float:
        """Share of the time in which the devices of all workers were given work; the rest they starved or wrote."""
        took = max(time.time() - self.started_at, 1e-3) * self.n_workers
        return min((self.seconds["transfer"] + self.seconds["compute"]) / took, 1.0)

    def said(self) -> str:
        """One sentence: rate, where the seconds went, which step to make faster."""
        took = max(time.time() - self.started_at, 1e-3)
        steps = ", ".join(f"{step} {self.seconds[step]:.1f}" for step in STEPS)
        return (
            f"{self.n_computed} series in {took:.1f} s ({self.n_computed / took:.1f}/s) on {self.n_workers} worker(s), "
            f"devices busy {100 * self.busy_share:.0f} % of the time; seconds summed over workers: {steps}; "
            f"slowest step: {self.slowest}" + (f"; {self.n_deaths} worker(s) died" if self.n_deaths else "")
        )

    def _tell(self, *, at_once: bool) -> None:
        bar: object = self.progress
        if isinstance(bar, Noting):
            n_refused = self.rejects.total()
            busy = f", devices busy {100 * self.busy_share:.0f} %, slowest: {self.slowest}" if self.slowest else ""
            bar.note(f"{n_refused} refused{busy}")
        if self.progress is not None:
            self.progress(self.done, self.total)
        if at_once or time.time() - self._written > EVERY_SECONDS:
            self._write("running")

    def _write(self, state: str) -> None:
        with self._lock:
            self._write_alone(state)

    def _write_alone(self, state: str) -> None:
        self._written = time.time()
        body = {
            "state": state, "pid": os.getpid(), "host": socket.gethostname(), "started_at": self.started_at,
            "updated_at": self._written, "total": self.total, "done": self.done, "n_computed": self.n_computed,
            "n_deaths": self.n_deaths, "n_workers": self.n_workers, "n_present": self.n_present,
            "rejects": dict(sorted(self.rejects.items())), "busy_share": self.busy_share,
            "items_per_second": self.items_per_second, "seconds_left": self.seconds_left, "seconds": self.seconds,
            "slowest": self.slowest, "dashboard": self.link,
        }  # fmt: skip
        unfinished = self.file.with_name(f".{self.file.name}.{os.getpid()}.unfinished")
        # news of the work must not end the work on a full disk
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(body, sort_keys=True))
            unfinished.replace(self.file)


@dataclass(frozen=True)
class Seen:
    """An inference as another process sees it.

    state: running, ended, or stopped by an error or with its process. Rate and time left are those of its last word;
    n_working is of now, from the journals of the workers. n_present: workers there were at its last word; null when it did
    not ask yet.
    """

    state: str
    total: int
    done: int
    n_workers: int
    n_present: int | None
    n_deaths: int
    rejects: Mapping[str, int]
    busy_share: float
    items_per_second: float
    seconds_left: float | None
    seconds: Mapping[str, float]
    slowest: str | None
    dashboard: str | None
    silent_seconds: float
    n_working: int


def look(folder: Path) -> Seen | None:
    """What the newest inference of a run says; null when there was none. folder: the private one of the run."""
    file = folder / PROGRESS
    try:
        body = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    silent = max(time.time() - body["updated_at"], 0.0)
    state = body["state"]
    if state == "running" and _is_gone(body, silent):
        state = "stopped"
    body["seconds"] = {step: body["seconds"].get(step, 0.0) for step in STEPS}  # in the order of the work
    names = [name for name in Seen.__dataclass_fields__ if name in body and name != "state"]
    journals = (read_journal(journal) for journal in folder.glob("shards/*/*.journal"))
    n_working = sum(len(left.working) for left in journals if left is not None)
    return Seen(state=state, silent_seconds=silent, n_working=n_working, **{name: body[name] for name in names})


def _is_gone(body: Mapping[str, Any], silent: float) -> bool:
    if body["host"] != socket.gethostname():
        return silent > SILENT_SECONDS
    try:
        os.kill(body["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
