"""Display tables hold the numbers of the contract tables, each with n, interval and reason."""

from __future__ import annotations

import polars as pl
import pytest

from ospor_batch.contracts import contract
from ospor_batch.report import tables
from ospor_batch.report.display import REASONS, Cell, DisplayTable, decimal, grouped, number, reason_said, spoken, text
from tests.report.made import CELLS, Made


def cell_at(shown: DisplayTable, *, row: str, heading: str) -> Cell:
    at = next(i for i, column in enumerate(shown.columns) if column.heading == heading)
    return next(cells[at] for cells in shown.rows if cells[0].text == row)


def test_center_by_vendor_shows_every_center_and_all_together_first(made: Made) -> None:
    shown = tables.center_by_vendor(made.frames["performance"], made.frames["prevalence"], slug="x", caption="x")
    assert [row[0].text for row in shown.rows] == ["all centers", "east", "north", "south", "west"]
    assert [column.heading for column in shown.columns][:5] == [
        "Center",
        "Scanner vendor",
        "Eligible, n",
        "Scored, n",
        "Verified, n",
    ]


@pytest.mark.parametrize("center", sorted(CELLS))
def test_numbers_are_those_of_the_tables(made: Made, center: str) -> None:
    shown = tables.center_by_vendor(made.frames["performance"], made.frames["prevalence"], slug="x", caption="x")
    for name, heading in (("performance", "Specificity (%)"), ("prevalence", "Prevalence by reference (%)")):
        metric = next(metric for metric, how in tables.METRICS.items() if how.heading == heading)
        row = made.frames[name].filter(stratum="center", center=center, metric=metric).row(0, named=True)
        cell = cell_at(shown, row=center, heading=heading)
        low, high = row["estimate_lower"] * 100, row["estimate_upper"] * 100
        assert cell.text == f"{row['estimate'] * 100:.1f} ({low:.1f} to {high:.1f})"
        assert cell.sort == row["estimate"]
    tp, _, fn, _ = CELLS[center]
    assert cell_at(shown, row=center, heading="Sensitivity (%)").sub == f"{tp}/{tp + fn}"


def test_not_estimable_says_so_with_its_reason(made: Made) -> None:
    shown = tables.center_by_vendor(made.frames["performance"], made.frames["prevalence"], slug="x", caption="x")
    cell = cell_at(shown, row="east", heading="Sensitivity (%)")
    assert (cell.text, cell.kind) == ("not estimable", "missing")
    assert "no_events" in cell.remark


def test_estimates_say_once_what_all_rows_share(made: Made) -> None:
    shown = tables.estimates(made.frames["performance"].filter(stratum="center"), "performance", slug="x", caption="x")
    assert "T reference: nhanes3_white_female" in shown.says
    assert "youden@tuning n=63 -> -112.4 HU" in shown.says
    assert shown.columns[0].heading == "Center"
    assert not any(column.heading.startswith("T reference") for column in shown.columns)


def test_what_differs_between_rows_gets_a_column(made: Made) -> None:
    rows = made.frames["performance"].filter(stratum="center")
    mixed = rows.with_columns(t_source=pl.when(pl.col("center") == "west").then(pl.lit("computed")).otherwise("t_source"))
    shown = tables.estimates(mixed, "performance", slug="x", caption="x")
    assert cell_at(shown, row="west", heading="Center").text == "west"
    at = [column.heading for column in shown.columns].index("T source")
    assert {row[at].text for row in shown.rows} == {"reported", "computed"}


def test_every_partition_has_its_rows_test_first(made: Made) -> None:
    rows = made.frames["performance"].filter(stratum="overall")
    both = pl.concat([rows.with_columns(partition=pl.lit("tuning")), rows])
    shown = tables.estimates(both, "performance", slug="x", caption="x")
    assert [row[0].text for row in shown.rows] == ["test", "tuning"]


def test_cells_without_a_threshold_are_not_estimable_and_never_none(made: Made) -> None:
    none = pl.lit(None, pl.Int64)
    rows = made.frames["performance"].filter(stratum="overall").with_columns(tp=none, fp=none, fn=none, tn=none)
    shown = tables.estimates(rows, "performance", slug="x", caption="x")
    texts = {column.heading: cell.text for column, cell in zip(shown.columns, shown.rows[0], strict=True)}
    assert texts["TP"] == "not estimable"
    assert "None" not in " ".join(cell.text + cell.sub for cell in shown.rows[0])


def test_attrition_sums_over_centers_and_keeps_the_order_of_steps(made: Made) -> None:
    rows = made.frames["attrition"].filter(level="person")
    shown = tables.attrition(rows, slug="x", caption="x")
    assert shown.rows[0][0].text == "no localizer"
    for cells in shown.rows:
        mine = rows.filter(step=cells[0].text, reason=cells[1].text)
        assert [cell.sort for cell in cells[2:5]] == [mine[name].sum() for name in ("n_in", "n_excluded", "n_out")]


def test_pooled_without_enough_groups_is_not_estimable(made: Made) -> None:
    shown = tables.pooled(made.frames["heterogeneity"], slug="x", caption="x")
    assert [cell.text for cell in shown.rows[0][5:7]] == ["0.905 (0.840 to 0.950)", "0.710 to 0.980"]
    assert {cell.text for cell in shown.rows[1][5:9]} == {"not estimable"}


def test_every_metric_of_the_contracts_has_a_heading() -> None:
    for name in ("performance", "prevalence", "agreement", "heterogeneity"):
        assert set(dict(contract(name).field("metric").constraints)["enum"]) <= set(tables.METRICS)


@pytest.mark.parametrize(
    ("value", "digits", "said"), [(-0.0001, 2, "0.00"), (-1.25, 1, "−1.2"), (0.5, 0, "0"), (12.345, 1, "12.3")]
)
def test_decimals_never_show_a_negative_nothing(value: float, digits: int, said: str) -> None:
    assert decimal(value, digits=digits) == said


def test_words_and_counts() -> None:
    assert [spoken(name) for name in ("n_eligible", "tp", "t_source", "prev_label", "scanner_vendor", "kvp")] == [
        "Eligible, n", "TP", "T source", "Prevalence label", "Scanner vendor", "kVp",
    ]  # fmt: skip
    assert grouped(1_234_567) == "1\u202f234\u202f567"
    assert grouped(9_999) == "9999"
    assert text(True).text == "yes"
    assert number(float("nan")).text == "not estimable"


def test_reasons_keep_their_typed_word() -> None:
    assert reason_said("no_such_reason") == "no_such_reason"
    assert all(reason in reason_said(reason) for reason in REASONS)
