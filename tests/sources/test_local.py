"""Whatever the system answers to opening or reading a file is a typed refusal without its path."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ospor_batch.errors import ItemRefused
from ospor_batch.sources import locate, open_bytes, read_bytes


@pytest.mark.parametrize(
    ("number", "reason", "is_transient"),
    [
        (errno.EACCES, "permission_denied", True),
        (errno.ENOENT, "file_missing", True),
        (errno.ENOTDIR, "file_missing", True),
        (errno.ENAMETOOLONG, "name_too_long", False),
        (errno.ESTALE, "read_error", True),
        (errno.EIO, "read_error", True),
    ],
)
def test_a_file_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str, is_transient: bool
) -> None:
    def fails(*_: Any, **__: Any) -> int:
        raise OSError(number, os.strerror(number), "/secret/Kim^Minji")

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", fails)
        with pytest.raises(ItemRefused) as refused, open_bytes(tmp_path / "f"):
            pass
    assert (refused.value.reason, refused.value.is_transient) == (reason, is_transient)
    assert "Kim" not in str(refused.value)


def test_a_file_that_goes_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(ItemRefused) as refused, open_bytes(tmp_path / "f"):
        raise OSError(errno.ESTALE, "Stale file handle")
    assert (refused.value.reason, refused.value.is_transient) == ("read_error", True)


@pytest.mark.parametrize("place", ["/dev/null", "/"])
def test_devices_and_folders_are_no_files(place: str) -> None:
    with pytest.raises(ItemRefused) as refused:
        read_bytes(Path(place))
    assert refused.value.reason == "special_file"


def test_a_path_too_long_for_the_system(tmp_path: Path) -> None:
    with pytest.raises(ItemRefused) as refused:
        read_bytes(tmp_path / "/".join(["d" * 250] * 17))
    assert refused.value.reason == "name_too_long"


def test_plain_files_keep_their_path(tmp_path: Path) -> None:
    assert locate(str(tmp_path), "a/b", cache=tmp_path) == tmp_path / "a" / "b"
    assert locate(str(tmp_path), "a.zip/b", cache=tmp_path).name == "b"
    assert locate("s3://bucket/x", "a/b", cache=tmp_path) != tmp_path
