"""Whether files that say they are one object hold the same bytes; only files that nothing else tells apart are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ospor_batch.archive.opening import header_source
from ospor_batch.errors import ItemRefused
from ospor_batch.sources import content_digest, roots


def content_digests(files: Sequence[tuple[str, int]], *, root: str, cache: Path) -> list[str | None]:
    """SHA-256 of the content of each file (path, size in bytes) of an archive; null where it cannot be read now.

    A DICOMweb server tells no bytes: null for all.
    """
    if roots.kind_of(root) == "dicomweb":
        return [None] * len(files)
    source = header_source(root, files, cache=cache)
    found: list[str | None] = []
    for path, _ in files:
        try:
            with source.open(path) as file:
                found.append(content_digest(file))
        except ItemRefused:
            found.append(None)
    return found
