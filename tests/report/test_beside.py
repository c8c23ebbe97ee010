"""What stands beside the main results: baseline, risks, checklists, and thresholds that can be read."""

from __future__ import annotations

import pytest

from ospor_batch.report import compose, render
from ospor_batch.report.beside import checklists, people
from ospor_batch.report.checklist import ITEMS, Known, checklist_rows
from ospor_batch.report.display import shortened
from tests.report.made import Made, made_run, table


@pytest.fixture(scope="module")
def made() -> Made:
    return made_run()


def test_a_human_item_is_never_marked_as_done(made: Made) -> None:
    rows = checklist_rows(made.study, Known(3))
    assert len(rows) == len(ITEMS)
    assert {row["guideline"] for row in rows} == {"STARD 2015", "TRIPOD+AI 2024", "CLAIM 2020"}
    for row in rows:
        assert (row["filled_by"] == "auto") == (row["answer"] is not None) == (row["where_found"] is not None)
    shown = checklists(table("checklist", rows))
    for listed in shown:
        n_open = sum(cells[2].text.startswith("open") for cells in listed.rows)
        assert f"{n_open} open" in listed.caption
        assert 0 < n_open < len(listed.rows)


def test_no_count_of_persons_stands_in_a_checklist(made: Made) -> None:
    """They would be exact where the release rounds."""
    said = " ".join(str(row["answer"]) for row in checklist_rows(made.study, Known(3)))
    assert "338" not in said
    assert "persons eligible" not in said


def test_table_1_has_a_column_per_group_with_its_size_and_no_p_value(made: Made) -> None:
    ((_, blocks),) = people(made.study.recipes[0], made.frames)
    baseline = next(block for block in blocks if block.name.startswith("baseline"))
    assert [column.heading for column in baseline.columns][2:] == ["all (n = 100)", "north (n = 40)", "south (n = 60)"]
    said = " ".join(cell.text + cell.sub for row in baseline.rows for cell in row)
    assert "SMD 0.12" in said
    assert "66.2 ± 8.1" in said
    assert "p =" not in said


def test_long_numbers_are_short_in_text_and_exact_in_tables(made: Made) -> None:
    exact = "youden@tuning n=63 -> -120.53730912591769 HU"
    assert shortened(exact) == "youden@tuning n=63 -> -120.5 HU"
    assert (
        shortened("sensitivity_at_least=0.9@tuning n=63 -> 0.4187263548 1")
        == "sensitivity_at_least=0.9@tuning n=63 -> 0.4187 1"
    )
    changed = made_run()
    changed.frames["performance"] = changed.frames["performance"].with_columns(
        threshold_id=changed.frames["performance"]["threshold_id"].str.replace(
            "-112.4 HU", "-120.53730912591769 HU", literal=True
        )
    )
    page = render(compose(changed.study, changed.tables()))
    estimand = page[page.index('class="estimand"') : page.index("Participant flow")]
    assert "-120.5 HU" in estimand
    assert "-120.53730912591769" not in estimand
    assert "-120.53730912591769 HU" in page
