"""Figures: valid SVG with title and description, no date, no maker, nothing left behind in matplotlib."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import matplotlib as mpl
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ospor_batch.report import Page, compose
from ospor_batch.report.figures import MOST_VECTOR_POINTS, Picture, bland_altman, roc
from tests.report.made import HOSPITALS, Made

SVG = "{http://www.w3.org/2000/svg}"
NAMES = (
    "flow-mean-hu", "roc-mean-hu", "forest-mean-hu", "bland-altman-mean-hu", "calibration-curve-mean-hu",
    "decision-curve-mean-hu", "pyramid-mean-hu", "flow-reference-mean-hu", "windows-mean-hu",
    "rejects-by-reason",
)  # fmt: skip


def pictures(page: Page) -> dict[str, Picture]:
    return {picture.name: picture for picture in page.pictures}


def test_every_figure_is_there_once(unchanged: Page) -> None:
    assert tuple(pictures(unchanged)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_says_what_it_shows(unchanged: Page, name: str) -> None:
    picture = pictures(unchanged)[name]
    drawn = ET.fromstring(picture.svg)
    assert drawn.attrib["role"] == "img"
    assert drawn.findtext(f"{SVG}title") == picture.title
    assert drawn.findtext(f"{SVG}desc") == picture.says
    ids = [element.attrib["id"] for element in drawn.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    assert all(made_id.startswith(name) for made_id in ids)


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_knows_no_date_and_no_maker(unchanged: Page, name: str) -> None:
    svg = pictures(unchanged)[name].svg
    assert "metadata" not in svg
    assert "Matplotlib" not in svg
    assert "xmlns" not in pictures(unchanged)[name].inline


def test_the_roc_plot_tells_auc_and_operating_point(unchanged: Page) -> None:
    said = pictures(unchanged)["roc-mean-hu"].says
    assert "all centers: AUC 0.91 (0.85 to 0.95)" in said
    assert "locked threshold: sensitivity 68.2 %, specificity 95.0 %" in said
    assert "east" not in said


def test_the_roc_plot_needs_no_threshold(made: Made) -> None:
    rows = made.frames["performance"].filter(pl.col("metric") == "auc")
    drawn = roc(made.frames["roc_point"], rows, centers=list(HOSPITALS), name="r", title="t")
    assert "locked threshold" not in drawn.says


def test_the_bland_altman_plot_tells_bias_and_limits(unchanged: Page) -> None:
    said = pictures(unchanged)["bland-altman-mean-hu"].says
    assert "120 persons" in said
    assert "bias: −1.25 (−3.50 to 1.00) mg/cm³" in said


@pytest.mark.parametrize("further", [0, -1000])
def test_the_legend_of_a_bland_altman_plot_stays_on_the_page(made: Made, further: float) -> None:
    numbers = ["estimate", "estimate_lower", "estimate_upper"]
    rows = made.frames["agreement"].with_columns(pl.col(numbers) + further)
    figure = bland_altman(made.frames["agreement_point"], rows, centers=list(HOSPITALS), name="b", title="t").figure
    assert figure is not None
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    legend = figure.axes[0].get_legend()
    assert legend is not None
    box = legend.get_window_extent(canvas.get_renderer())
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert box.y0 >= 0


def test_no_bland_altman_plot_where_bias_is_not_estimable(made: Made) -> None:
    rows = made.frames["agreement"]
    made.frames["agreement"] = rows.filter(pl.col("metric") == "pearson_r")
    assert "bland-altman-mean-hu" not in pictures(compose(made.study, made.tables()))


def test_many_points_become_one_picture(made: Made) -> None:
    many = pl.concat([made.frames["agreement_point"]] * (MOST_VECTOR_POINTS // 120 + 1))
    drawn = bland_altman(many, made.frames["agreement"], centers=list(HOSPITALS), name="b", title="t")
    assert "data:image/png;base64" in drawn.svg


def test_settings_of_matplotlib_are_put_back(made: Made) -> None:
    before = dict(mpl.rcParams)
    pictures(compose(made.study, made.tables()))
    assert dict(mpl.rcParams) == before
