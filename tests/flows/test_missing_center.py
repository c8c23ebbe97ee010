"""Under Prefect too, a center whose root is not mounted stops alone in a sweep, and the flow says so in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import study as flow
from ospor_batch.config import read_study
from ospor_batch.errors import ArchiveError
from ospor_batch.plan import Step, run_step
from ospor_batch.runs import all_runs
from ospor_batch.store import Store
from tests.archive.made import write_series

pytestmark = pytest.mark.flows
STUDY = """\
[study]
name = "test"
pseudonym_key = { env = "OSPOR_KEY" }
[[centers]]
name = "away"
archives = ["away"]
[[centers]]
name = "north"
archives = ["north"]
[[references]]
id = "dxa"
standard = "dxa_who"
[[recipes]]
name = "mean_hu"
reference = "dxa"
threshold = { fixed = 110 }
[sweep]
settle_minutes = 0
"""


@pytest.mark.parametrize("is_sweep", [True, False])
def test_the_other_centers_are_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_sweep: bool) -> None:
    monkeypatch.setenv("OSPOR_KEY", "test-key-0123456789")
    study_file = tmp_path / "study.toml"
    study_file.write_text(STUDY, encoding="utf-8")
    write_series(tmp_path / "north", n=3)

    def here(study_file: str, *, stage: str, center: str | None, run_id: str | None, is_sweep: bool) -> int:
        step = Step(stage, center=center, run_id=run_id)
        return len(run_step(read_study(Path(study_file)), step, is_sweep=is_sweep).summaries)

    patched: Any = here  # the task without its server
    monkeypatch.setattr(flow, "run_stage", patched)
    with pytest.raises(ArchiveError, match="center away"):
        flow.run_plan(str(study_file), is_sweep=is_sweep)
    store = Store(read_study(study_file).workspace)
    assert store.current("series")["center"].to_list() == (["north"] if is_sweep else [])
    assert all_runs(store) == []
