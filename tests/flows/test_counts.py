"""What Prefect shows of a stage: its ledger and its remarks, one table a run."""

from __future__ import annotations

from typing import Any

import pytest

from flows import counts
from ospor_batch.plan import Finished, Step
from ospor_batch.stages.summary import StageSummary


def test_a_run_leaves_a_table_of_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    left: dict[str, Any] = {}
    monkeypatch.setattr(counts, "create_table_artifact", lambda rows, **more: left.update(rows=rows, **more))
    said = StageSummary(
        "infer mean_hu", "north", "series", requested=6, done=4, excluded=1, failed=1,
        notes=(("file_missing", 1), ("mask_missing", 1)), remarks=("6 series in 3.0 s (2.0/s)",),
    )  # fmt: skip
    counts.show_counts(Finished(Step("infer"), (said,)))
    (row,) = left["rows"]
    assert (row["requested"], row["done"], row["excluded"], row["failed"]) == (6, 4, 1, 1)
    assert row["reasons"] == "1 file_missing, 1 mask_missing"
    assert left["key"] == "ospor-infer"
    assert "6 series in 3.0 s" in left["description"]
    left.clear()
    counts.show_counts(Finished(Step("infer"), ()))
    assert not left
