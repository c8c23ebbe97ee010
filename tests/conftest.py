"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference results and real files; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("OSPOR_SHARED", "../shared"))
    folder = folder if folder.is_absolute() else ROOT / folder
    if not folder.is_dir():
        pytest.skip(f"no shared folder at {folder}: set OSPOR_SHARED to run against reference results and real files")
    return folder


@pytest.fixture
def key() -> bytes:
    return b"test-key-0123456789"
