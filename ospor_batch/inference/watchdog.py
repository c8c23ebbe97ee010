"""End this process when one series takes too long: a decoder that hangs cannot be stopped from Python.

The clock is faulthandler's thread, which runs in C and needs no interpreter lock; a decoder that hangs usually holds it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import threading
import time
from collections.abc import Iterator

_lock = threading.Lock()
_numbers = itertools.count()
_deadlines: dict[int, tuple[float, int]] = {}  # piece of work to the time at which it is too late, and where to say so


@contextlib.contextmanager
def at_most(seconds: float, *, say_to: int) -> Iterator[None]:
    """Give the body so many seconds; then the process ends at once, with its stack (no values) written to a descriptor.

    Bodies of several threads have a deadline each.
    """
    number = next(_numbers)
    with _lock:
        _deadlines[number] = (time.monotonic() + seconds, say_to)
        _wind()
    try:
        yield
    finally:
        with _lock:
            del _deadlines[number]
            _wind()


def _wind() -> None:
    """Set the one clock of the process to the nearest deadline."""
    if not _deadlines:
        faulthandler.cancel_dump_traceback_later()
        return
    deadline, say_to = min(_deadlines.values())
    faulthandler.dump_traceback_later(max(deadline - time.monotonic(), 0.001), exit=True, file=say_to)
