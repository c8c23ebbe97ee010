"""Workers in trouble: images that are slow to read, that crash their decoder, or that hang it; and who read what."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin


class Trouble(WorkerPlugin):  # type: ignore[misc]
    """Patches the reader of a worker process, also of one that replaces a dead one; sent by value.

    crash, hang: names of the folders whose images do so. seconds: that every image takes. log: a line for every image read.
    """

    name = "trouble"

    def __init__(self, log: Path, *, crash: Sequence[str] = (), hang: Sequence[str] = (), seconds: float = 0.0) -> None:
        self.log, self.crash, self.hang, self.seconds = log, tuple(crash), tuple(hang), seconds

    def setup(self, worker: Any = None) -> None:
        from ospor_batch.imaging.reader import read_volume
        from ospor_batch.inference import items

        def troubled(paths: Sequence[Path], **how: Any) -> Any:
            name = paths[0].parent.name
            with self.log.open("a") as log:
                log.write(f"{name}\n")
            if name in self.crash:
                os.abort()
            if name in self.hang:
                # backtracks for hours in compiled code that holds the interpreter lock
                re.match(r"(a+)+$", "a" * 64 + "b")
            time.sleep(self.seconds)
            return read_volume(paths, **how)

        items.read_volume = troubled

    def reads(self) -> Counter[str]:
        """How often the images of each folder were read."""
        return Counter(self.log.read_text().split()) if self.log.exists() else Counter()


class DyingAfterWriting(WorkerPlugin):  # type: ignore[misc]
    """The first process that makes a part durable dies before its journal can say so."""

    name = "dying_after_writing"

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def setup(self, worker: Any = None) -> None:
        from ospor_batch.inference import journal

        keeps = journal.Journal.keeps

        def dying(self_: Any, items: Any) -> None:
            if self.mark.with_suffix(".armed").exists() and not self.mark.exists():
                self.mark.write_text(" ".join(items))
                os.abort()
            keeps(self_, items)

        journal.Journal.keeps = dying  # type: ignore[method-assign]
