"""A root that is not mounted stops its center alone, and nothing is tabulated while a center is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospor_batch.config import Study
from ospor_batch.errors import ArchiveError
from ospor_batch.plan import run_study
from ospor_batch.runs import all_runs
from ospor_batch.store import Store
from tests.archive.made import write_series


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("OSPOR_KEY", "test-key-0123456789")
    told = {
        "study": {"name": "test", "pseudonym_key": {"env": "OSPOR_KEY"}},
        "centers": [{"name": name, "archives": [name]} for name in ("away", "north")],
        "references": [{"id": "dxa", "standard": "dxa_who"}],
        "recipes": [{"name": "mean_hu", "reference": "dxa", "threshold": {"fixed": 110}}],
        "sweep": {"settle_minutes": 0},
    }
    return Study.model_validate(told).model_copy(update={"folder": tmp_path})


def test_a_root_that_is_not_mounted_stops_its_center_alone(study: Study) -> None:
    write_series(study.folder / "north", n=3)
    with pytest.raises(ArchiveError, match="center away") as stop:
        run_study(study, is_sweep=True)
    assert stop.value.exit_code == 15
    store = Store(study.workspace)
    assert store.current("series")["center"].to_list() == ["north"]
    assert all_runs(store) == []


def test_outside_a_sweep_a_missing_root_stops_before_work(study: Study) -> None:
    write_series(study.folder / "north", n=3)
    with pytest.raises(ArchiveError, match="center away"):
        run_study(study)
    assert Store(study.workspace).snapshot() == {}
