"""What a crawl can say of how far it is: a total only when the last folder is listed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ospor_batch.archive.walk import Folder, Listed
from ospor_batch.stages.summary import Noting, Progress

SECONDS = 0.5  # between two words while files are being listed
Item = tuple[str, Folder | Listed]


class Watch:
    """Tells files read of files that must be; while files are being listed, how many were found and what is left to list."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._to_read: dict[Path, int] = {}
        self._folders_left: dict[str, int] = {}
        self._n_found = self._n_to_read = self._n_read = 0
        self._is_open = True
        self._said = time.monotonic()

    def listing(self, listed: Iterable[Item]) -> Iterator[Item]:
        """The items of a listing, counted as they come."""
        for archive, item in listed:
            self._n_found += len(item.names) if isinstance(item, Folder) else 1
            if time.monotonic() - self._said > SECONDS:
                self._say(self._words())
            yield archive, item

    def left(self, archive: str, n_folders: int) -> None:
        """So many folders of an archive are known of and not listed yet; each may hold others."""
        self._folders_left[archive] = n_folders

    def expect(self, work_list: Path, *, n_files: int) -> None:
        """A part must be read."""
        self._to_read[work_list] = n_files
        self._n_to_read += n_files

    def all_found(self) -> None:
        """No more parts will be expected: from now on the total is known."""
        self._is_open = False
        self._say("")

    def read(self, work_list: Path) -> None:
        """A part was read."""
        self._n_read += self._to_read.pop(work_list)
        self._say(self._words() if self._is_open else "")

    def size(self, work_list: Path) -> int:
        """Files of a part that is not read yet."""
        return self._to_read[work_list]

    def note(self, words: str) -> None:
        """Show these words beside the count."""
        self._say(words)

    def _words(self) -> str:
        left = sum(self._folders_left.values())
        return f"{self._n_found} files found, {left} folders left to list" if left else f"{self._n_found} files found"

    def _say(self, words: str) -> None:
        self._said = time.monotonic()
        shown: object = self._progress
        if isinstance(shown, Noting):
            shown.note(words)
        if self._progress is not None:
            self._progress(self._n_read, 0 if self._is_open else self._n_to_read)
