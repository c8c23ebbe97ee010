"""Plots as SVG text: the same table gives the same bytes; no clock, no host, no state of matplotlib is touched."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import polars as pl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ospor_batch.report.display import decimal, percent, unit_said

EVERYONE = "all"
# Okabe and Ito 2008, safe for the colour-blind; black is kept for all centers together
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
GREY = "#767676"  # 4.5:1 on white
MOST_VECTOR_POINTS = 2000  # beyond, a page of single marks is slow to open: they become one picture
SETTINGS = {
    "svg.hashsalt": "ospor_batch", "svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 10.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10.0, "legend.frameon": False,
    "legend.fontsize": 9.0, "axes.unicode_minus": True,
}  # fmt: skip
LINES_SAID = {"bias": "bias", "loa_upper": "upper limit", "loa_lower": "lower limit"}
WIDEST_OF_TWO = 38  # characters of a label, so that two columns of them stay within 7.2 inches
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """A drawing: its file name, what it is called, what it shows in words, and its SVG."""

    name: str
    title: str
    says: str
    svg: str
    figure: Figure | None = field(default=None, compare=False, repr=False)

    def printed(self, kind: str, *, dpi: int) -> bytes:
        """The same drawing as png or pdf, without clock or maker; only of drawings made here."""
        if self.figure is None:
            raise ValueError(f"{self.name} has no figure to print")
        out = io.BytesIO()
        keys = {"pdf": ("CreationDate", "Creator", "Producer"), "png": ("Software",)}[kind]
        with mpl.rc_context(SETTINGS):
            self.figure.set_layout_engine("none")  # laid out when the SVG was drawn; once is enough
            self.figure.savefig(out, format=kind, dpi=dpi, metadata=dict.fromkeys(keys))
        return out.getvalue()

    @property
    def inline(self) -> str:
        """The SVG for the middle of a page: no prologue, no name spaces, ids of its own."""
        bare = re.sub(r"^.*?(?=<svg)", "", self.svg, flags=re.DOTALL)
        return re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", bare).replace("xlink:href=", "href=")


def roc(points: pl.DataFrame, performance: pl.DataFrame, *, centers: Sequence[str], name: str, title: str) -> Picture:
    """Draw the ROC curve of all centers and of each, with the locked operating point on the first."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(5.6, 5.6), layout="constrained")
        axes = figure.add_subplot(aspect="equal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 4)))
        said = []
        for center, colour, style in _dressed(points["center"], centers):
            curve = points.filter(pl.col("center") == center).sort("false_positive_rate", "true_positive_rate")
            label = f"{_called(center)}: AUC {_interval(_of(performance, center, 'auc'), digits=2)}"
            said.append(label)
            wide = 2.2 if center == EVERYONE else 1.4
            x, y = curve["false_positive_rate"].to_list(), curve["true_positive_rate"].to_list()
            axes.plot(x, y, color=colour, linestyle=style, linewidth=wide, label=label)
        se, sp = (_of(performance, EVERYONE, metric) for metric in ("sensitivity", "specificity"))
        if _is_there(se) and _is_there(sp):
            label = f"locked threshold: sensitivity {percent(se['estimate'])}, specificity {percent(sp['estimate'])}"
            said.append(label)
            dot: dict[str, Any] = {
                "marker": "o",
                "markersize": 8,
                "markerfacecolor": "white",
                "markeredgecolor": "black",
                "markeredgewidth": 1.6,
            }
            axes.plot([1 - sp["estimate"]], [se["estimate"]], linestyle="none", label=label, **dot)
        axes.set(xlabel="1 − specificity", ylabel="Sensitivity")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12))
        return Picture(name, title, "; ".join(said), written(figure, name=name, title=title, says="; ".join(said)), figure)


def bland_altman(points: pl.DataFrame, agreement: pl.DataFrame, *, centers: Sequence[str], name: str, title: str) -> Picture:
    """Draw differences against means with bias, limits of agreement and the interval of each."""
    unit = unit_said(agreement["compared_unit"][0]) if agreement.height else ""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        axes = figure.add_subplot()
        many = points.height > MOST_VECTOR_POINTS
        for i, (center, colour, _) in enumerate(_dressed(points["center"], centers)):
            mine = points.filter(pl.col("center") == center).sort("mean", "difference")
            look: dict[str, Any] = {
                "s": 14,
                "alpha": 0.7,
                "linewidths": 0,
                "marker": MARKERS[i % len(MARKERS)],
                "rasterized": many,
            }
            axes.scatter(mine["mean"].to_list(), mine["difference"].to_list(), color=colour, label=_called(center), **look)
        said = [f"{points.height} persons"]
        for metric, style in (("loa_upper", "--"), ("bias", "-"), ("loa_lower", "--")):
            row = _of(agreement, EVERYONE, metric)
            if not _is_there(row):
                continue
            interval = _interval(row, digits=2)
            said.append(f"{metric.replace('loa_', 'limit of agreement, ')}: {interval} {unit}")
            label = f"{LINES_SAID[metric]}: {interval}"
            axes.axhline(row["estimate"], color="black", linestyle=style, linewidth=1.2, label=label)
            if row["estimate_lower"] is not None and row["estimate_upper"] is not None:
                axes.axhspan(row["estimate_lower"], row["estimate_upper"], color=GREY, alpha=0.18, linewidth=0)
        axes.set(xlabel=f"Mean of predicted and reference value ({unit})", ylabel=f"Predicted minus reference ({unit})")
        _, labels = axes.get_legend_handles_labels()
        is_narrow = max(map(len, labels)) <= WIDEST_OF_TWO
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2 if is_narrow else 1)
        return Picture(name, title, "; ".join(said), written(figure, name=name, title=title, says="; ".join(said)), figure)


def forest(performance: pl.DataFrame, heterogeneity: pl.DataFrame, *, name: str, title: str) -> Picture:
    """Draw AUC, sensitivity and specificity of each center side by side, pooled estimates below."""
    centers = [center for center in sorted(set(performance["center"])) if center != EVERYONE]
    rows = [*centers, EVERYONE]
    said: list[str] = []
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(8.4, 1.3 + 0.34 * (len(rows) + 1)), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for axes, metric in zip(panels, ("auc", "sensitivity", "specificity"), strict=True):
            for i, center in enumerate(rows):
                said += _whisker(axes, _of(performance, center, metric), at=-i, who=_called(center), metric=metric)
            pooled = heterogeneity.filter(pl.col("metric") == metric).to_dicts()
            said += _whisker(axes, pooled[0] if pooled else None, at=-len(rows), who="pooled", metric=metric, is_pooled=True)
            heading = metric.upper() if metric == "auc" else metric.capitalize()
            axes.set(title=heading, xlim=(-0.02, 1.02), ylim=(-len(rows) - 0.6, 0.6))
            axes.set_yticks([-i for i in range(len(rows) + 1)], [*map(_called, rows), "pooled"])
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
            axes.tick_params(axis="y", length=0)
        return Picture(name, title, "; ".join(said), written(figure, name=name, title=title, says="; ".join(said)), figure)


def _whisker(axes: Any, row: Row | None, *, at: float, who: str, metric: str, is_pooled: bool = False) -> list[str]:
    if row is None or not _is_there(row):
        axes.text(0.5, at, "not estimable", color=GREY, ha="center", va="center", fontsize=8.5)
        return [f"{metric} {who}: not estimable"]
    low, high = row["estimate_lower"], row["estimate_upper"]
    if low is not None and high is not None:
        axes.plot([low, high], [at, at], color="black" if is_pooled else COLOURS[0], linewidth=1.4)
    look: dict[str, Any] = (
        {"marker": "D", "color": "black"} if is_pooled or who == _called(EVERYONE) else {"marker": "s", "color": COLOURS[0]}
    )
    axes.plot([row["estimate"]], [at], markersize=6, linestyle="none", **look)
    return [f"{metric} {who}: {_interval(row, digits=2)}, n = {row['n_persons']}"]


def _dressed(found: pl.Series, centers: Sequence[str]) -> list[tuple[str, str, str]]:
    """Each center found with its colour and line, the same in every plot; all in black first."""
    dressed = [(EVERYONE, "black", "-")]
    for i, name in enumerate(centers):
        dressed.append((name, COLOURS[i % len(COLOURS)], STYLES[(i + i // len(COLOURS)) % len(STYLES)]))
    return [look for look in dressed if look[0] in set(found)]


def _called(center: str) -> str:
    return "all centers" if center == EVERYONE else center


def _of(rows: pl.DataFrame, center: str, metric: str) -> dict[str, Any]:
    found = rows.filter(pl.col("center") == center, pl.col("metric") == metric)
    return found.row(0, named=True) if found.height else {}


def _is_there(row: Row) -> bool:
    return row.get("estimate") is not None


def _interval(row: Row, *, digits: int) -> str:
    if not _is_there(row):
        return "not estimable"
    value, lower, upper = row["estimate"], row["estimate_lower"], row["estimate_upper"]
    if lower is None or upper is None:
        return f"{decimal(value, digits=digits)} (no interval)"
    return f"{decimal(value, digits=digits)} ({decimal(lower, digits=digits)} to {decimal(upper, digits=digits)})"


def written(figure: Figure, *, name: str, title: str, says: str) -> str:
    """The figure as SVG without date or maker, with title and description, its ids prefixed by its name."""
    FigureCanvasSVG(figure)
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = out.getvalue().decode("utf-8")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*|<!DOCTYPE.*?>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif", svg)
    svg = svg.replace("*{stroke-linejoin", f"#{name}-figure_1 *{{stroke-linejoin")
    head = f'role="img" aria-labelledby="{name}-title {name}-desc"'
    told = f'<title id="{name}-title">{html.escape(title)}</title><desc id="{name}-desc">{html.escape(says)}</desc>'
    return re.sub(r"<svg\b([^>]*)>", lambda found: f"<svg{found[1]} {head}>\n {told}", svg, count=1)


def safe_name(*parts: str) -> str:
    """Join words to a name that is good for files and ids."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
