"""Whether an archive root is still the one whose listing was begun: a share may go while its files are read."""

from __future__ import annotations

from ospor_batch.archive.ahead import Identity, identity
from ospor_batch.archive.look import look_at
from ospor_batch.errors import ArchiveError
from ospor_batch.sources import roots


def presence(root: str) -> Identity | None:
    """What tells a root from whatever stands in its place later; null where a server holds it, or it does not answer."""
    if roots.kind_of(root) != "local":
        return None
    try:
        return identity(root)
    except OSError:
        return None


def refuse_gone(root: str, before: Identity | None) -> None:
    """ArchiveError when a root is not what it was, or does not answer; before: its presence when it was listed."""
    if before is None:
        look_at(root)
        return
    try:
        now = identity(root)
    except OSError as error:
        raise ArchiveError(f"does not answer any more ({type(error).__name__}: {error.strerror})") from None
    if now != before:
        raise ArchiveError("went while it was read: another folder stands in its place, as after unmounting")
