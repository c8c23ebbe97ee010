"""A model folder is whole and sealed: what is read is what was written, and one changed byte is refused with its file named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from ospor_batch.errors import StudyError
from ospor_batch.models.bundle import CARD, SEAL, SEALED, SPEC, WEIGHTS, bundle_digest, open_bundle, read_spec, write_bundle

STATE = {"network.a": np.arange(6, dtype=np.float32).reshape(2, 3), "target.mean": np.array([1.5])}


def written(folder: Path) -> str:
    return write_bundle(folder, state=STATE, metadata={"version": "1"}, spec={"recipe": "r", "seed": 1}, card="# r\n")


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    digest = written(tmp_path / "m")
    found = open_bundle(tmp_path / "m")
    assert found.digest == digest == bundle_digest(tmp_path / "m")
    assert found.spec["recipe"] == "r" == read_spec(tmp_path / "m")["recipe"]
    assert found.state.keys() == STATE.keys()
    assert all(np.array_equal(found.state[name], STATE[name]) for name in STATE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]  # nothing unfinished is left


def test_the_same_content_makes_the_same_bytes(tmp_path: Path) -> None:
    assert written(tmp_path / "a") == written(tmp_path / "b")
    for name in (*SEALED, SEAL):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_seal_is_one_that_sha256sum_checks(tmp_path: Path) -> None:
    written(tmp_path / "m")
    lines = dict(reversed(line.split("  ")) for line in (tmp_path / "m" / SEAL).read_text().splitlines())
    assert lines == {name: hashlib.sha256((tmp_path / "m" / name).read_bytes()).hexdigest() for name in SEALED}


@pytest.mark.parametrize("name", [*SEALED, SEAL])
def test_one_changed_byte_is_refused(tmp_path: Path, name: str) -> None:
    written(tmp_path / "m")
    content = bytearray((tmp_path / "m" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "m" / name).write_bytes(content)
    with pytest.raises(StudyError, match=r"model folder m: .*(SHA256SUMS|cannot be read)") as refused:
        open_bundle(tmp_path / "m")
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("name", [WEIGHTS, SPEC, CARD, SEAL])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    written(tmp_path / "m")
    (tmp_path / "m" / name).unlink()
    with pytest.raises(StudyError, match=f"{name} cannot be read"):
        open_bundle(tmp_path / "m")


def test_another_format_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", state=STATE, metadata={}, spec={"format": "another 9"}, card="")
    with pytest.raises(StudyError, match="has format 'another 9', expected 'ospor_batch model 1'"):
        read_spec(tmp_path / "m")
