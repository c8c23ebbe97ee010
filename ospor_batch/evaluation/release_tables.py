"""The tables of a run as they may leave the hospital: withheld cells marked, counts rounded, nothing private; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ospor_batch.contracts import contract
from ospor_batch.evaluation.disclosure import Plan
from ospor_batch.evaluation.discrimination import Confusion, operating_point
from ospor_batch.evaluation.intervals import Estimate, proportion
from ospor_batch.evaluation.release_cells import row_key
from ospor_batch.evaluation.suppression import rounded
from ospor_batch.evaluation.two_by_two import further_measures

Row = dict[str, Any]
WITHHELD = "withheld"  # what stands in a cell of CSV and XLSX that may not be shown
SMALL_CELL = "small_cell"
ESTIMATES = ("estimate", "estimate_lower", "estimate_upper")
CALLS = ("tp", "fp", "fn", "tn")
FROM_CALLS = {"prev_corrected", "prev_label_begg_greenes"}
FEWEST_FOR_AN_AREA = 2  # times the smallest cell, in each class: an AUC of few people tells of each
DIGITS = 3  # of released estimates where counts are rounded
AREAS = ("auc", "auc_within_center", "partial_auc")  # of discrimination; shares and bounds tell of counts
COUNTED_FAMILIES = ("sensitivity_by_recipe", "specificity_by_recipe")  # differences of few discordant persons
DECISION_STEP = 5  # percent: finer steps tell single persons' risks apart
# every table of the release; what is dropped repeats counts that stand in another table, or holds single persons
DROPPED: dict[str, tuple[str, ...]] = {
    "performance": (), "prevalence": (), "agreement": (), "baseline": (), "missingness": (), "age_sex": (), "attrition": (),
    "three_class": (), "risk_curve": (), "score_histogram": (), "agreement_sum": (),
    "risk_calibration": ("n_persons", "n_events"), "heterogeneity": ("n_persons",), "leave_one_out": (),
    "comparison": ("n_first", "n_second"), "discrimination": ("n_persons", "n_images", "n_events", "n_missing"),
    "threshold": ("n_persons", "n_events", "data_digest"), "calibration": ("n_persons",),
    "published": ("n_persons",), "decision_curve": ("n_persons", "n_events"), "checklist": (), "rejects_summary": (),
}  # fmt: skip
NOT_RELEASED = {
    "roc_point": "each corner is the score of a person; the histogram of scores stands for it",
    "agreement_point": "each point is a person",
    "recalibration_point": "isotonic steps are scores of persons",
    "linkage": "monthly counts of few persons",
    "contrast": "counts of series in the whole catalog, some of few persons; the steps of attrition say who left by contrast",
    "site_recalibration": "few people of one hospital, cut twice; the run has them",
    "overlap": "means over few persons per vendor and level; the run has them",
    "window": "differences between windows are counts of few persons",
    "exhibit": "figures and tables of other stages, which the rules for small cells do not cover",
}


@dataclass(frozen=True)
class Rules:
    """The declared bounds of the release."""

    smallest: int
    base: int
    ppv_prevalence: float


@dataclass(frozen=True)
class Released:
    """One table of the release; withheld cells are null and named in the column ``withheld``."""

    name: str
    contract: str | None
    rows: pl.DataFrame
    n_withheld: int

    def marked(self) -> pl.DataFrame:
        """The table as text where a marker must stand: withheld cells say so, others keep their exact form."""
        listed = pl.col(WITHHELD).str.split(";")
        shown = []
        for name, dtype in self.rows.schema.items():
            if name == WITHHELD or not self.rows[WITHHELD].str.split(";").list.contains(name).any():
                shown.append(pl.col(name))
                continue
            said = pl.col(name) if dtype == pl.String() else pl.col(name).cast(pl.String)
            shown.append(pl.when(listed.list.contains(name)).then(pl.lit(WITHHELD)).otherwise(said).alias(name))
        return self.rows.select(shown)


def released_tables(frames: Mapping[str, pl.DataFrame], plan: Plan, *, rules: Rules) -> tuple[Released, ...]:
    """Every table of the release, in a fixed order."""
    found = []
    for name, dropped in DROPPED.items():
        source = "reject_count" if name == "rejects_summary" else name
        rows = _rejects(frames["reject_count"]) if name == "rejects_summary" else frames[name]
        kept = _selected(name, rows, rules)
        if name in {"score_histogram", "agreement_sum"}:
            kept = _without_hidden_centers(name, kept, plan)
        found.append(_released(name, source, kept, plan, dropped=dropped, rules=rules))
    return tuple(found)


def _without_hidden_centers(name: str, rows: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """Leave out centers whose totals are withheld: bins and sums would give them away."""
    table, columns = ("performance", {*CALLS, "n_persons", "n_events"})
    if name == "agreement_sum":
        table, columns = "agreement", {"n_persons", "n_events"}
    key, at = contract(table).primary_key, contract(table).primary_key.index
    hidden = {
        (found[at("recipe")], found[at("partition")], found[at("center")])
        for where, found, column in plan.withheld
        if where == table and column in columns and len(found) == len(key)
        and found[at("stratum")] in {"overall", "center"} and found[at("is_same_acquisition")] == "all"
    }  # fmt: skip
    if not hidden:
        return rows
    named = pl.DataFrame(
        sorted(hidden), schema={"recipe": pl.String, "partition": pl.String, "center": pl.String}, orient="row"
    )
    return rows.join(named, on=["recipe", "partition", "center"], how="anti", maintain_order="left")


def _selected(name: str, rows: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    if name == "attrition":
        return rows.filter(pl.col("level") == "person")
    if name == "decision_curve":
        return rows.filter((pl.col("threshold") * 100).round(0).cast(pl.Int64) % DECISION_STEP == 0)
    if name == "comparison":
        return rows.filter(~pl.col("family").is_in(COUNTED_FAMILIES))
    if name == "discrimination":
        is_area = (pl.col("unit") == "person") & (pl.col("analysis") == "complete_case")
        return rows.filter(is_area & pl.col("metric").is_in(AREAS))
    return _merged_bins(rows, rules.smallest) if name == "score_histogram" else rows


def _released(name: str, source: str, rows: pl.DataFrame, plan: Plan, *, dropped: tuple[str, ...], rules: Rules) -> Released:
    of = contract(source)
    shown, n_withheld = [], 0
    areas = _classes_by_group(rows) if name == "performance" else {}
    for row in rows.iter_rows(named=True):
        key = row_key(row, of.primary_key)
        hidden = {c for c in rows.columns if name != "rejects_summary" and plan.hides(name, key, column=c)}
        hidden |= _more_hidden(name, row, hidden, rules=rules, areas=areas)
        if name == "prevalence" and row["metric"] in FROM_CALLS and _hides_calls(row, plan):
            hidden |= set(ESTIMATES)
        if name == "discrimination" and _hides_people(row, plan):
            hidden |= set(ESTIMATES)
        kept = {c: v for c, v in _rounded(name, row, rules=rules, hidden=hidden).items() if c not in dropped}
        hidden = {c for c in hidden if c in kept and row[c] is not None}
        if "estimate" in hidden:
            kept |= {"status": WITHHELD, "status_reason": SMALL_CELL}
        n_withheld += len(hidden)
        shown.append({c: None if c in hidden else v for c, v in kept.items()} | {WITHHELD: ";".join(sorted(hidden))})
    schema = {c: dtype for c, dtype in rows.schema.items() if c not in dropped} | {WITHHELD: pl.String()}
    frame = pl.DataFrame(shown, schema=schema)
    return Released(name, of.id if name != "rejects_summary" else None, frame, n_withheld)


def _hides_calls(row: Row, plan: Plan) -> bool:
    """Whether the 2 x 2 table behind a corrected prevalence is withheld."""
    key = row_key(row | {"metric": "auc"}, contract("performance").primary_key)
    return any(plan.hides("performance", key, column=column) for column in CALLS)


def _hides_people(row: Row, plan: Plan) -> bool:
    """Whether the performance table withholds how many people the group has."""
    of = contract("performance")
    everyone = dict.fromkeys(of.primary_key, "all") | {name: row[name] for name in ("recipe", "reference_id", "partition")}
    parted = {} if row["grouping"] == "overall" else {row["grouping"]: row["group"]}
    key = row_key(everyone | {"unit": "person", "stratum": row["grouping"], "metric": "auc"} | parted, of.primary_key)
    return plan.hides("performance", key, column="n_persons")


def _classes_by_group(rows: pl.DataFrame) -> dict[tuple[Any, ...], tuple[int, int]]:
    key = [c for c in contract("performance").primary_key if c != "metric"]
    return {row_key(row, key): (row["n_events"], row["n_persons"] - row["n_events"]) for row in rows.iter_rows(named=True)}


def _more_hidden(
    name: str, row: Row, hidden: set[str], *, rules: Rules, areas: Mapping[tuple[Any, ...], tuple[int, int]]
) -> set[str]:
    """Numbers that give a withheld count away, or that rest on too few people."""
    numbers = {c for c in ESTIMATES if c in row}
    if name == "performance":
        key = [c for c in contract("performance").primary_key if c != "metric"]
        few = min(areas[row_key(row, key)]) < FEWEST_FOR_AN_AREA * rules.smallest
        share = {"verified_fraction"} if hidden & {"n_eligible", "n_persons", "n_scored"} else set()
        if row["metric"] == "auc":
            return share | (numbers if few or "n_persons" in hidden else set())
        return share | (numbers if hidden & {*CALLS, "n_persons", "n_events"} else set())
    if name in {"prevalence", "agreement"}:
        share = {"verified_fraction"} if name == "prevalence" and hidden & {"n_eligible", "n_persons", "n_scored"} else set()
        return share | (numbers if hidden & {"n_persons", "n_events"} or row["n_persons"] < rules.smallest else set())
    if name == "three_class":
        return numbers if any(c.startswith("n_") for c in hidden) else set()
    if name == "baseline":
        described = {"mean", "sd", "median", "quartile_lower", "quartile_upper"}
        small = row["n_persons"] - row["n_missing"] < 2 * rules.smallest
        counted = {"share", "standardised_difference"} if hidden & {"n_level", "n_persons", "n_missing"} or small else set()
        return counted | (described if small else set())
    return _rarer_hidden(name, row, hidden, rules=rules, numbers=numbers)


def _rarer_hidden(name: str, row: Row, hidden: set[str], *, rules: Rules, numbers: set[str]) -> set[str]:
    if name == "missingness":
        return {"share_missing"} if hidden else set()
    if name == "risk_curve":
        return {"observed", "observed_lower", "observed_upper"} if hidden else set()
    if name in {"risk_calibration", "discrimination"}:
        few = min(row["n_events"], row["n_persons"] - row["n_events"]) < FEWEST_FOR_AN_AREA * rules.smallest
        return numbers if few else set()
    if name == "comparison":
        return numbers | {"p_value", "p_holm", "p_bh"} if min(row["n_first"], row["n_second"]) < 2 * rules.smallest else set()
    if name == "decision_curve":
        few = min(row["n_events"], row["n_persons"] - row["n_events"]) < FEWEST_FOR_AN_AREA * rules.smallest
        return {"net_benefit", "net_benefit_everyone"} if few else set()
    if name == "agreement_sum":
        few = row["n_persons"] < 2 * rules.smallest
        return {c for c in row if c.startswith("sum_") or c == "n_persons"} if few else set()
    if name == "rejects_summary":
        is_person_like = row["level"] in {"series", "exam", "label", "export_row"}
        return {"n"} if is_person_like and 0 < row["n"] < rules.smallest else set()
    return set()


def _rounded(name: str, row: Row, *, rules: Rules, hidden: set[str]) -> Row:
    """Counts to the base; shares built anew from rounded counts, so that they do not give the exact ones away."""
    if rules.base == 1:
        return dict(row)
    fields = contract("reject_count" if name == "rejects_summary" else name).fields
    counts = {f.name for f in fields if f.type == "integer" and f.suppress}
    shown = {c: rounded(v, rules.base) if c in counts and v is not None else v for c, v in row.items()}
    if name == "agreement_sum":
        scale = shown["n_persons"] / row["n_persons"] if row["n_persons"] else 0.0
        shown |= {c: float(f"{v * scale:.4g}") for c, v in row.items() if c.startswith("sum_")}
    if "status" in row and row["status"] == "estimated" and not hidden & set(ESTIMATES):
        shown |= _anew(name, shown, rules=rules) or {c: _digits(row[c]) for c in ESTIMATES if c in row}
    for c in ("share", "share_missing", "verified_fraction", "standardised_difference", "observed", "smooth", "mean_risk"):
        if c in row:
            shown[c] = None if row[c] is None else round(row[c], 2)
    for c in ("observed_lower", "observed_upper", "net_benefit", "net_benefit_everyone"):
        if c in row:
            shown[c] = None if row[c] is None else round(row[c], 2)
    for c in ("mean", "sd", "median", "quartile_lower", "quartile_upper"):
        if c in row and row[c] is not None:
            shown[c] = float(f"{row[c]:.3g}")
    return shown


def _anew(name: str, shown: Row, *, rules: Rules) -> Row | None:
    """A proportion from its rounded counts; null for a metric that is no function of them."""
    found: Estimate | None = None
    if name == "performance" and all(shown[c] is not None for c in CALLS):
        table = Confusion(*(shown[c] for c in CALLS))
        found = (operating_point(table, prevalence=rules.ppv_prevalence) | further_measures(table)).get(shown["metric"])
    if name == "prevalence" and shown["metric"] in {"prev_label", "prev_test_positive"}:
        found = proportion(min(shown["n_events"], shown["n_persons"]), shown["n_persons"])
    if found is None:
        return None
    return {
        "estimate": found.value, "estimate_lower": found.lower, "estimate_upper": found.upper,
        "interval_method": f"{found.method}_of_rounded_counts",
        "status": "estimated" if found.is_estimable else "not_estimable", "status_reason": found.reason,
    }  # fmt: skip


def _digits(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _rejects(rows: pl.DataFrame) -> pl.DataFrame:
    """What was refused, summed over the centers."""
    together = rows.group_by("stage", "level", "reason").agg(pl.col("n").sum()).sort("stage", "level", "reason")
    return together.select(center=pl.lit("all"), stage="stage", level="level", reason="reason", n="n")


def _merged_bins(rows: pl.DataFrame, smallest: int) -> pl.DataFrame:
    """Neighbouring bins joined until each class has nobody or enough; a center that never has enough is left out.

    The row of all centers is left out too: beside the centers' bins its finer ones would be differences.
    """
    key = ["recipe", "reference_id", "partition", "center", "score_unit"]
    found: list[Row] = []
    kept = rows.filter(pl.col("center") != "all").sort(*key, "bin_lower")
    for group, bins in kept.group_by(key, maintain_order=True):
        joined: list[Row] = []
        for row in bins.iter_rows(named=True):
            if joined and not _is_enough(joined[-1], smallest):
                joined[-1] = joined[-1] | {
                    "bin_upper": row["bin_upper"], "n_events": joined[-1]["n_events"] + row["n_events"],
                    "n_others": joined[-1]["n_others"] + row["n_others"],
                }  # fmt: skip
            else:
                joined.append(dict(zip(key, group, strict=True)) | row)
        while len(joined) > 1 and not _is_enough(joined[-1], smallest):
            last = joined.pop()
            for name in ("n_events", "n_others"):
                joined[-1][name] += last[name]
            joined[-1]["bin_upper"] = last["bin_upper"]
        found += [row for row in joined if _is_enough(row, smallest)]
    return pl.DataFrame(found, schema=rows.schema)


def _is_enough(row: Row, smallest: int) -> bool:
    """Each class has nobody or enough, and somebody is there."""
    return all(row[name] == 0 or row[name] >= smallest for name in ("n_events", "n_others"))
