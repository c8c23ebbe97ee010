"""Fixtures of the report tests."""

from __future__ import annotations

import pytest

from ospor_batch.report import Page, compose, render
from tests.report.made import Made, made_run


@pytest.fixture
def made() -> Made:
    """Tables that a test may change."""
    return made_run()


@pytest.fixture(scope="session")
def unchanged() -> Page:
    """The page of the tables as they are; drawing takes half a second."""
    run = made_run()
    return compose(run.study, run.tables())


@pytest.fixture(scope="session")
def page(unchanged: Page) -> str:
    return render(unchanged)
