"""Objects of an S3 bucket: listed page by page, headers fetched many at a time, whole objects in one request."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from ospor_batch.errors import ArchiveError, StudyError
from ospor_batch.sources.names import checked_time, path_name
from ospor_batch.sources.streams import ranged

SCHEME = "s3://"
HEAD = 1 << 16
LARGEST_BLOCK = 16 << 20
WHOLE_AT_MOST = 256 << 20  # read into memory at once; larger objects in blocks
AHEAD = 64  # requests under way; a store answers each in some 20 ms
ASLEEP = ("GLACIER", "DEEP_ARCHIVE")  # storage classes that answer only after a restore


class Object(NamedTuple):
    """One object below the prefix; ``is_asleep`` when it must be restored before it can be read."""

    path: str
    size_bytes: int
    mtime_ns: int
    is_asleep: bool = False


class Objects:
    """A bucket, or what lies below a prefix of it; keys and endpoint come from the environment alone, as for every S3 tool."""

    def __init__(self, root: str) -> None:
        self.bucket, _, prefix = root.removeprefix(SCHEME).strip("/").partition("/")
        self.prefix = f"{prefix}/" if prefix else ""
        self._expected: list[tuple[str, int]] = []
        self._places: dict[str, int] = {}
        self._heads: dict[str, bytes] = {}
        self._given: set[str] = set()

    def key(self, path: str) -> str:
        return f"{self.bucket}/{self.prefix}{path_name(path)}"

    def listing(self) -> Iterator[Object]:
        """Every object below the prefix in order of keys; ArchiveError when the store does not answer or forbids it."""
        from ospor_batch.sources.names import path_text

        asked: dict[str, Any] = {"Bucket": self.bucket, "Prefix": self.prefix}
        while True:
            try:
                with _as_os_errors():
                    page = _filesystem().call_s3("list_objects_v2", **asked)
            except OSError as error:
                raise ArchiveError(f"the bucket cannot be listed ({type(error).__name__}: {_hint(error)})") from None
            for told in page.get("Contents", []):
                name = told["Key"].removeprefix(self.prefix)
                if name and not (name.endswith("/") and told["Size"] == 0):  # what a browser shows as a folder
                    is_asleep = told.get("StorageClass") in ASLEEP
                    yield Object(path_text(name), told["Size"], _time(told["LastModified"], told["ETag"]), is_asleep)
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def status(self, path: str) -> tuple[int, int] | None:
        """Size and checked time of an object; null when there is none."""
        with _as_os_errors():
            try:
                told = _filesystem().call_s3("head_object", Bucket=self.bucket, Key=self.prefix + path_name(path))
            except FileNotFoundError:
                return None
        return int(told["ContentLength"]), _time(told["LastModified"], told["ETag"])

    def expect(self, files: Sequence[tuple[str, int]]) -> None:
        """Name the files (path, size) whose headers will be asked for next, in this order."""
        self._expected = list(files)
        self._places = {path: n for n, (path, _) in enumerate(files)}
        self._heads, self._given = {}, set()

    def open(self, path: str, size: int | None = None) -> BinaryIO:
        """Open an object; expected ones from their first bytes, others whole. OSError when the store refuses."""
        if size is None:
            found = self.status(path)
            if found is None:
                raise FileNotFoundError
            size = found[0]
        if path in self._places:
            return ranged(size, _Blocks(self.key(path), size, self._head(path)))
        if size <= WHOLE_AT_MOST:
            return io.BytesIO(_bytes(self.key(path), 0, size))
        return ranged(size, _Blocks(self.key(path), size, b""))

    def directory(self, path: str, size: int) -> BinaryIO:
        """Open an archive that lies in the store, to be read here and there."""
        return ranged(size, _Blocks(self.key(path), size, b""))

    def _head(self, path: str) -> bytes:
        if path in self._given:  # it is opened once more, and alone
            return b""
        if path not in self._heads:
            at = self._places[path]
            wanted = [(p, min(size, HEAD)) for p, size in self._expected[at : at + AHEAD] if size]
            with _as_os_errors():
                found = _filesystem().cat_ranges(
                    [self.key(p) for p, _ in wanted], [0] * len(wanted), [n for _, n in wanted], on_error="return"
                )
            # what failed here is asked for again, alone, and fails by itself
            self._heads = {p: head for (p, _), head in zip(wanted, found, strict=True) if isinstance(head, bytes)}
        self._given.add(path)
        return self._heads.pop(path, b"")


class _Blocks:
    """Ranges of one object; each held block is four times the last while reading runs on."""

    def __init__(self, key: str, size: int, head: bytes) -> None:
        self._key, self._size = key, size
        self._start, self._held = 0, head
        self._block = HEAD

    def __call__(self, at: int, n: int) -> bytes:
        end = self._start + len(self._held)
        if not self._start <= at <= at + n <= end:
            self._block = min(4 * self._block, LARGEST_BLOCK) if at == end and self._held else HEAD
            self._held = _bytes(self._key, at, min(self._size, at + max(n, self._block)))
            self._start = at
        return self._held[at - self._start : at - self._start + n]


def _bytes(key: str, start: int, end: int) -> bytes:
    if end <= start:
        return b""
    with _as_os_errors():
        content = _filesystem().cat_file(key, start=start, end=end)
    if len(content) != end - start:
        raise ConnectionError  # it changed while it was read
    return bytes(content)


@functools.cache
def _filesystem() -> Any:
    try:
        import fsspec

        return fsspec.filesystem("s3", use_listings_cache=False)
    except ImportError:
        raise StudyError("an archive in s3:// needs: pip install 'ospor-batch[s3]'") from None


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Failures of the client that are no OSError, such as missing keys, as the OSError they amount to."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError:
        raise PermissionError("no keys") from None
    except (BotoCoreError, ClientError) as error:
        raise ConnectionError(type(error).__name__) from None


def _time(modified: Any, etag: str) -> int:
    return checked_time(modified.timestamp(), etag.encode())


def _hint(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, set, and may they list it?"
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket"
    return "is AWS_ENDPOINT_URL right, and the store reachable from here?"
