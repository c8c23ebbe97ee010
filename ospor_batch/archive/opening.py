"""The files of one partition, opened for their headers, whatever kind of archive they lie in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ospor_batch.archive.header import Header
from ospor_batch.archive.web_header import as_told, header_file
from ospor_batch.errors import ItemRefused
from ospor_batch.sources import content_digest, roots
from ospor_batch.sources.cache import Cache
from ospor_batch.sources.local import refusal_of
from ospor_batch.sources.locations import HeaderFiles


class HeaderSource(Protocol):
    """Where the header reader gets its files."""

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open one file of the partition; ItemRefused says why it cannot be read."""

    def told(self, path: str, header: Header) -> Header:
        """The header with what the source itself knows better."""


def header_source(root: str, files: Sequence[tuple[str, int]], *, cache: Path) -> HeaderSource:
    """The source of an archive root. files: path and size, in the order in which they are read."""
    if roots.kind_of(root) == "dicomweb":
        return _WebHeaders(root, cache=Cache(cache))
    return _StoredHeaders(root, files, cache=cache)


class _StoredHeaders(HeaderFiles):
    def told(self, path: str, header: Header) -> Header:  # noqa: ARG002 -- a file says all there is
        return header


class _WebHeaders:
    """Headers by WADO-RS metadata; only segmentations are fetched, since their content is digested."""

    def __init__(self, root: str, *, cache: Cache) -> None:
        self._root, self._cache = root, cache
        self._series: dict[str, dict[str, Any]] = {}  # held no longer than the partition, lest they grow old

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        with header_file(self._header(path)) as file:
            yield file

    def told(self, path: str, header: Header) -> Header:
        header = as_told(header, self._header(path))
        if header.content_digest is None:
            return header
        try:
            with roots.cached_instance(self._root, path, cache=self._cache).open("rb") as file:
                return replace(header, content_digest=content_digest(file))
        except OSError as error:
            raise refusal_of(error) from None

    def _header(self, path: str) -> dict[str, Any]:
        if path not in self._series:
            self._series = roots.server(self._root).headers(path)
        if path not in self._series:
            raise ItemRefused("file_missing", "the server no longer has it", is_transient=True)
        return self._series[path]
