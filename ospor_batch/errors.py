"""The error tree and its exit codes; an error names who must act.

OsporError                      1   anything of ours without a class of its own
├── StudyError                 10   the study file is wrong: whoever wrote it mends it before any work
│   ├── KeyMissingError        14   the pseudonym key is not there: the data manager provides it
│   └── ArchiveError           15   an archive or export is missing or unreadable: the data engineer mends it
├── ContractError              11   a table has the wrong shape: stop the stage
├── LedgerError                12   rows in and rows out differ: a bug or a damaged workspace
├── DriftStop                  13   a stratum moved beyond its bound: a person must look
├── StorageError               16   the disk is full or refuses: free space, then run again
├── LockedError                17   another process writes to this workspace: wait
├── NothingToDoError           18   no row is left to work on: the message says which step removed the last
├── ClusterError               19   the cluster gives no worker: whoever runs it, or its queue, must act
└── ItemRefused                 -   one file, series or row cannot be used: a reject row, go on
Interrupted work (Ctrl-C) ends with 130, as shells do.
"""

from __future__ import annotations


class OsporError(Exception):
    """Base of every error that is shown without a traceback."""

    exit_code = 1


class StudyError(OsporError):
    """The study file, or what it points to, is wrong: stop before any work."""

    exit_code = 10


class KeyMissingError(StudyError):
    """The pseudonym key cannot be read."""

    exit_code = 14


class ArchiveError(StudyError):
    """An archive root or an export is missing, empty or unreadable."""

    exit_code = 15


class ContractError(OsporError):
    """A table does not have the shape that its contract declares."""

    exit_code = 11


class LedgerError(OsporError):
    """Requested is not done plus excluded plus failed."""

    exit_code = 12


class DriftStop(OsporError):  # noqa: N818 -- a stop that was asked for, not a failure
    """A stratum moved beyond its declared bound; nothing was tabulated."""

    exit_code = 13


class StorageError(OsporError):
    """The disk is full or refuses to write."""

    exit_code = 16


class LockedError(OsporError):
    """Another process holds the writer lock of the workspace."""

    exit_code = 17


class NothingToDoError(OsporError):
    """A step left nothing to work on."""

    exit_code = 18


class ClusterError(OsporError):
    """A cluster refuses work or gives no worker for longer than a run waits."""

    exit_code = 19


def nameless(error: Exception) -> OsporError:
    """An unexpected failure without its text, which may quote a patient: its class and the line of ours it came from."""
    at, trace = "", error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module.startswith(("ospor_batch", "flows")):
            at = f" at {module}:{trace.tb_lineno}"
        trace = trace.tb_next
    return OsporError(
        f"unexpected {type(error).__name__}{at}; its text is withheld since it may hold identifiers: "
        "set OSPOR_DEBUG=1 and run the command in a terminal to see it"
    )


class ItemRefused(OsporError):  # noqa: N818 -- it is a verdict on one item, not a failure of the program
    """One file, series or row cannot be used; it becomes a reject row.

    reason is a typed word (``^[a-z0-9_]+$``); detail says more and holds no identifier and no path.
    """

    def __init__(self, reason: str, detail: str = "", *, is_transient: bool = False) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.is_transient = is_transient

    def __reduce__(self) -> tuple[object, ...]:
        return (_item_refused, (self.reason, self.detail, self.is_transient))


def _item_refused(reason: str, detail: str, is_transient: bool) -> ItemRefused:  # noqa: FBT001
    return ItemRefused(reason, detail, is_transient=is_transient)
