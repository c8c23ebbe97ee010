"""Drawings of risks, decisions, ages, windows and scores; the same table gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ospor_batch.report.display import decimal, spoken
from ospor_batch.report.figures import COLOURS, GREY, MARKERS, SETTINGS, STYLES, Picture, written

ALL = "all"
LOOKS = tuple(zip(COLOURS, STYLES * 2, MARKERS, strict=False))
LAYERS = (("n_eligible", "#cfd8e3", 0.85), ("n_labelled", COLOURS[0], 0.6), ("n_events", COLOURS[1], 0.3))
ROW_HEIGHT = 0.3  # inches
MOST_REASONS = 20  # of a figure; the table holds all


def calibration(curve: pl.DataFrame, *, name: str, title: str) -> Picture:
    """Draw observed against predicted risk in tenths with intervals, and the smooth curve; the diagonal is a perfect fit."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(5.6, 5.4), layout="constrained")
        axes = figure.add_subplot(aspect="equal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 4)))
        said = []
        for (way, rows), (colour, style, marker) in zip(_ways(curve), LOOKS, strict=False):
            shown = rows.filter(pl.col("observed").is_not_null() & pl.col("mean_risk").is_not_null())
            x, y = shown["mean_risk"].to_list(), shown["observed"].to_list()
            spread = [[max(0.0, v - low) for v, low in zip(y, shown["observed_lower"], strict=True)],
                      [max(0.0, high - v) for v, high in zip(y, shown["observed_upper"], strict=True)]]  # fmt: skip
            axes.errorbar(x, y, yerr=spread, fmt=marker, color=colour, markersize=5, linewidth=1, label=_way_said(way))
            smooth = rows.filter(pl.col("smooth").is_not_null()).sort("mean_risk")
            axes.plot(smooth["mean_risk"].to_list(), smooth["smooth"].to_list(), color=colour, linestyle=style, linewidth=1.4)
            points = "; ".join(f"{decimal(a, digits=2)} observed {decimal(b, digits=2)}" for a, b in zip(x, y, strict=True))
            said.append(f"{_way_said(way)}: predicted {points}")
        axes.set(xlabel="Predicted risk", ylabel="Observed share")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12))
        return _picture(figure, name, title, said)


def decision(curve: pl.DataFrame, *, name: str, title: str) -> Picture:
    """Draw net benefit of the model, of acting on everybody and on nobody, against the threshold probability."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(6.6, 4.4), layout="constrained")
        axes = figure.add_subplot()
        said, tops = [], [0.01]
        for i, ((way, rows), (colour, style, _)) in enumerate(zip(_ways(curve), LOOKS, strict=False)):
            ordered = rows.drop_nulls("net_benefit").sort("threshold")
            x, y = ordered["threshold"].to_list(), ordered["net_benefit"].to_list()
            axes.plot(x, y, color=colour, linestyle=style, linewidth=1.6, label=_way_said(way))
            everyone = ordered["net_benefit_everyone"].to_list()
            tops += [*y, *everyone]
            if i == 0:
                axes.plot(x, everyone, color="black", linestyle=":", linewidth=1.2, label="act on everybody")
            best = max(zip(y, x, strict=True), default=(0.0, 0.0))
            said.append(f"{_way_said(way)}: net benefit at most {decimal(best[0], digits=3)} at {decimal(best[1], digits=2)}")
        axes.axhline(0, color=GREY, linewidth=1, label="act on nobody")
        top = max(tops)
        axes.set(xlabel="Threshold probability", ylabel="Net benefit per person", xlim=(0, 1), ylim=(-0.25 * top, 1.08 * top))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
        return _picture(figure, name, title, said)


def pyramid(people: pl.DataFrame, *, name: str, title: str) -> Picture:
    """Draw eligible people by age and sex, those with a label and those with the condition inside, to one scale."""
    ages = sorted(set(people["age_group"]) - {"unknown"}, key=lambda group: int(group.rstrip("+").split("-")[0]))
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(7.2, 1.6 + ROW_HEIGHT * len(ages)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        most = max([int(v) for v in people.filter(pl.col("age_group").is_in(ages))["n_eligible"].drop_nulls()] or [1])
        said = []
        for axes, sex in ((left, "female"), (right, "male")):
            rows = {row["age_group"]: row for row in people.filter(pl.col("sex") == sex).iter_rows(named=True)}
            for column, colour, height in (
                ("n_eligible", "#cfd8e3", 0.85),
                ("n_labelled", COLOURS[0], 0.6),
                ("n_events", COLOURS[1], 0.3),
            ):
                counts = [int((rows.get(age) or {}).get(column) or 0) for age in ages]
                axes.barh(range(len(ages)), counts, height=height, color=colour, label=_count_said(column))
                said.append(
                    f"{sex}, {_count_said(column)}: " + ", ".join(f"{a} {n}" for a, n in zip(ages, counts, strict=True))
                )
            axes.set(title=sex, xlim=(0, most * 1.05), xlabel="Persons")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            axes.set_yticks(range(len(ages)), ages)
        left.invert_xaxis()
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        return _picture(figure, name, title, said)


def windows(rows: pl.DataFrame, *, name: str, title: str) -> Picture:
    """Draw how many persons match and the share with the condition, under each window."""
    ordered = rows.sort("before_days", "after_days").to_dicts()
    labels = [
        f"−{row['before_days']} to +{row['after_days']} d" + (" (declared)" if row["is_declared"] else "") for row in ordered
    ]
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(7.6, 1.4 + ROW_HEIGHT * len(ordered)), layout="constrained")
        many, share = figure.subplots(1, 2, sharey=True)
        at = range(len(ordered))
        many.barh(at, [row["n_persons"] for row in ordered], color=COLOURS[0], height=0.6)
        shares = [100 * row["n_events"] / row["n_persons"] if row["n_persons"] else None for row in ordered]
        known = [(i, value) for i, value in zip(at, shares, strict=True) if value is not None]
        share.plot([v for _, v in known], [i for i, _ in known], linestyle="none", marker="o", color=COLOURS[1])
        many.set_yticks(at, labels)
        many.invert_yaxis()
        many.set(xlabel="Persons with a match")
        share.set(xlabel="With the condition (%)", xlim=(0, 100))
        said = [
            f"{label}: {row['n_persons']} persons, {row['n_events']} with" for label, row in zip(labels, ordered, strict=True)
        ]
        return _picture(figure, name, title, said)


def rejects(rows: pl.DataFrame, *, name: str, title: str) -> Picture:
    """Draw how many were refused for each reason at each level, the commonest first, centers one after another in a bar."""
    totals = (
        rows.group_by("level", "reason").agg(pl.col("n").sum()).sort(["n", "level", "reason"], descending=[True, False, False])
    )
    shown, centers = totals.head(MOST_REASONS), sorted(set(rows["center"]))
    counts = {(r["level"], r["reason"], r["center"]): r["n"] for r in _summed(rows).iter_rows(named=True)}
    pairs = shown.select("level", "reason").rows()
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(8.4, 1.5 + ROW_HEIGHT * len(pairs)), layout="constrained")
        axes = figure.add_subplot()
        ends = [0] * len(pairs)
        for center, (colour, _, _) in zip(centers, LOOKS * (1 + len(centers) // len(LOOKS)), strict=False):
            widths = [counts.get((*pair, center), 0) for pair in pairs]
            axes.barh(range(len(pairs)), widths, left=ends, height=0.65, color=colour, edgecolor="white", label=center)
            ends = [end + width for end, width in zip(ends, widths, strict=True)]
        axes.set_yticks(
            range(len(pairs)), [f"{level.replace('_', ' ')}: {reason.replace('_', ' ')}" for level, reason in pairs]
        )
        for i, end in enumerate(ends):
            axes.text(end, i, f" {end}", va="center", fontsize=8.5)
        axes.invert_yaxis()
        axes.set(xlabel="Refused (counts of different levels are not to be added)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside lower center", ncols=6)
        said = [f"{level} {reason} {end}" for (level, reason), end in zip(pairs, ends, strict=True)]
        left = totals.height - shown.height
        return _picture(figure, name, title, [*said, f"{left} rarer reasons stand in the table alone"] if left else said)


def _summed(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by("level", "reason", "center").agg(pl.col("n").sum())


def forest_of(rows: pl.DataFrame, pooled: pl.DataFrame, *, by: str, metrics: Sequence[str], name: str, title: str) -> Picture:
    """Draw estimates of each group of a stratum side by side, a metric a panel, the pooled one below."""
    groups = sorted(set(rows[by]) - {ALL})
    names = [*groups, ALL, "pooled"]
    said: list[str] = []
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(2.9 * len(metrics), 1.3 + ROW_HEIGHT * len(names)), layout="constrained")
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for axes, metric in zip(panels, metrics, strict=True):
            mine = rows.filter(pl.col("metric") == metric)
            for i, group in enumerate(names):
                found = pooled.filter(pl.col("metric") == metric) if group == "pooled" else mine.filter(pl.col(by) == group)
                said.append(_estimate(axes, found.to_dicts(), at=-i, who=group, metric=metric))
            axes.set(title=spoken(metric), xlim=(-0.02, 1.02), ylim=(0.6 - len(names), 0.6))
            axes.set_yticks([-i for i in range(len(names))], [f"all {spoken(by).lower()}s" if g == ALL else g for g in names])
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
            axes.tick_params(axis="y", length=0)
        return _picture(figure, name, title, said)


def binned_roc(bins: pl.DataFrame, *, name: str, title: str) -> Picture:
    """Draw the ROC curve of each center from its histogram of scores: straight between the edges of bins."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(5.6, 5.6), layout="constrained")
        axes = figure.add_subplot(aspect="equal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 4)))
        said = []
        for center, (colour, style, _) in zip(sorted(set(bins["center"])), LOOKS * 5, strict=False):
            rows = bins.filter(pl.col("center") == center).sort("bin_lower", descending=True)
            x, y = ([0, *rows[c].cum_sum().to_list()] for c in ("n_others", "n_events"))
            if not x[-1] or not y[-1]:
                continue
            axes.plot(
                [v / x[-1] for v in x], [v / y[-1] for v in y], color=colour, linestyle=style, linewidth=1.4, label=center
            )
            said.append(f"{center}: {len(x) - 1} bins")
        axes.set(xlabel="1 − specificity", ylabel="Sensitivity")
        if said:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12))
        return _picture(figure, name, title, said or ["no center has enough people"])


def _estimate(axes: Any, found: list[dict[str, Any]], *, at: float, who: str, metric: str) -> str:
    row = found[0] if found else {}
    if row.get("estimate") is None:
        why = "withheld" if row.get("status") == "withheld" else "not estimable"
        axes.text(0.5, at, why, color=GREY, ha="center", va="center", fontsize=8.5)
        return f"{metric} {who}: {why}"
    low, high, is_all = row["estimate_lower"], row["estimate_upper"], who in {ALL, "pooled"}
    if low is not None and high is not None:
        axes.plot([low, high], [at, at], color="black" if is_all else COLOURS[0], linewidth=1.4)
    look = {"marker": "D", "color": "black"} if is_all else {"marker": "s", "color": COLOURS[0]}
    axes.plot([row["estimate"]], [at], markersize=6, linestyle="none", **look)
    return f"{metric} {who}: {decimal(row['estimate'], digits=2)}"


def _ways(curve: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    ids = sorted(set(curve["calibration_id"]))
    by_risk = [column for column in ("bin", "threshold") if column in curve.columns]
    return [(way, curve.filter(pl.col("calibration_id") == way).sort(by_risk)) for way in ids]


def _way_said(way: str) -> str:
    return "as predicted" if way == "none" else f"recalibrated: {way}"


def _count_said(column: str) -> str:
    return {"n_eligible": "eligible", "n_labelled": "labelled", "n_events": "with the condition"}[column]


def _picture(figure: Figure, name: str, title: str, said: Sequence[str]) -> Picture:
    words = "; ".join(said)
    return Picture(name, title, words, written(figure, name=name, title=title, says=words), figure)
