"""Fixtures of the report tests."""

from __future__ import annotations

import pytest

from tests.report.made import Made, made_run


@pytest.fixture
def made() -> Made:
    return made_run()
