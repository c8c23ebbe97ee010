"""The page: order, warnings, escaping, self-containment, the same bytes twice."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import polars as pl
import pytest

from ospor_batch.report import compose, render
from ospor_batch.report.page import RunTables
from tests.report.made import Made

VOID = {"meta", "br", "input", "hr", "img", "link"}
SHAPES = {"path", "rect", "use", "circle", "line"}


class Reader(HTMLParser):
    """Collects text, ids and links, and holds that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "xlink:href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def written(made: Made) -> str:
    """The page of changed tables, without the plots of points."""
    made.frames |= {name: made.frames[name].clear() for name in ("roc_point", "agreement_point")}
    return render(compose(made.study, made.tables()))


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def words(page: str) -> str:
    body = re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def test_the_page_is_well_formed_with_ids_of_their_own(page: str) -> None:
    reader = read(page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))


def test_two_recipes_share_a_page(made: Made) -> None:
    first = made.study.recipes[0]
    made.study = made.study.model_copy(update={"recipes": (first, first.model_copy(update={"id": "mean_hu_fixed"}))})
    for name, rows in made.frames.items():
        if "recipe" in rows.columns:
            again = rows.filter(pl.col("recipe") == first.key).with_columns(recipe=pl.lit("mean_hu_fixed"))
            made.frames[name] = pl.concat([rows, again])
    reader = read(written(made))
    assert len(reader.ids) == len(set(reader.ids))
    assert {"flow-mean-hu", "flow-mean-hu-fixed"} <= set(reader.ids)


def test_nothing_is_fetched_from_anywhere(page: str) -> None:
    assert "http://" not in page
    assert "https://" not in page
    reader = read(page)
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)
    assert not {"link", "iframe", "object", "embed"} & set(reader.tags)
    assert "@import" not in page
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", page)


def test_what_a_reader_needs_first_stands_first(page: str) -> None:
    said = words(page)
    order = [
        "Generated data: proves the chain, no clinical meaning",
        "holds small cells and is not for release",
        "find osteoporosis as defined by dxa_any_site",
        "Participant flow",
        "Center by scanner vendor",
        "Warnings",
        "Results of mean_hu",
        "Performance of mean_hu, overall",
        "Prevalence of mean_hu, overall",
        "Agreement of mean_hu, overall",
        "Attrition of mean_hu",
        "Linkage of mean_hu",
        "Refused files, rows, exams and series by reason",
        "Parameters of the analysis",
    ]
    places = [said.index(text, said.index("Skip")) if i < 3 else said.rindex(text) for i, text in enumerate(order)]
    assert places == sorted(places)


def test_no_banner_over_real_data(made: Made) -> None:
    section = made.study.study.model_copy(update={"is_generated": False})
    made.study = made.study.model_copy(update={"study": section})
    assert "Generated data" not in written(made)


def test_the_estimand_names_target_reference_window_threshold_and_partition(page: str) -> None:
    said = words(page)
    for part in (
        "T-score of −2.5 or lower",
        "lumbar spine, femoral neck, total hip",
        "180 days before to 180 days after",
        "Youden's index on the tuning partition",
        "youden@tuning n=63 -> -112.4 HU; the score is minus the value",
        "internal test and external",
    ):
        assert part in said


def test_the_threshold_of_a_probability_has_no_unit(made: Made) -> None:
    rows = made.frames["performance"]
    made.frames["performance"] = rows.with_columns(threshold_id=pl.lit("youden@tuning n=63 -> 0.451 1"))
    assert "locked before the test (youden@tuning n=63 -> 0.451); estimated" in words(written(made))


def test_warnings_that_matter_are_given(page: str) -> None:
    said = words(page)
    assert "Sensitivity is low at the locked threshold beside a high AUC" in said
    assert "center north sensitivity 42.1 % (16/38), AUC 0.912" in said
    assert "center east (0 with, 43 without the condition)" in said
    assert "Linkage at center west: 20 of 200 labelled persons" in said
    assert "Only part of the eligible have a label in the window" in said
    assert "do not use these tables" not in said


def test_a_flow_that_ends_elsewhere_is_a_warning(made: Made) -> None:
    rows = made.frames["attrition"]
    made.frames["attrition"] = rows.filter(pl.col("stage") != "evaluate")
    assert "The flow ends with 338 persons and the performance table holds 330" in words(written(made))


def test_a_threshold_that_could_not_be_set_is_a_warning(made: Made) -> None:
    missing = {"status": "not_estimable", "status_reason": "no_tuning_people"}
    changed = {name: pl.lit(value) for name, value in missing.items()}
    made.frames["threshold"] = made.frames["threshold"].with_columns(score_cut=pl.lit(None, pl.Float64), **changed)
    assert "Threshold not estimable: nobody is in the tuning partition" in words(written(made))


def test_low_coverage_and_unlike_t_scores_are_warnings(made: Made) -> None:
    rows = made.frames["performance"]
    is_west = pl.col("center") == "west"
    made.frames["performance"] = rows.with_columns(
        n_scored=pl.when(is_west).then(50).otherwise("n_scored"),
        t_reference=pl.when(is_west).then(pl.lit("unknown")).otherwise("t_reference"),
    )
    said = words(written(made))
    assert "center west 50 of 100 (50.0 %)" in said
    assert "west: reported, unknown" in said


def test_a_missing_number_says_why_and_is_never_blank(page: str) -> None:
    assert "nobody with the condition (no_events)" in page
    assert not re.search(r"<td[^>]*></td>", page)
    assert "NaN" not in page.split("<script>", maxsplit=1)[0]
    assert "None" not in words(page)


@pytest.mark.parametrize(
    "frame", ["performance", "heterogeneity", "reject_count", "agreement", "roc_point", "linkage", "attrition"]
)
def test_a_run_without_a_table_still_has_a_page(made: Made, frame: str) -> None:
    made.frames[frame] = made.frames[frame].clear()
    assert "Provenance" in words(written(made))


def test_a_run_without_any_table_still_has_a_page(made: Made) -> None:
    made.frames = {name: frame.clear() for name, frame in made.frames.items()}
    said = words(written(made))
    assert "No attrition was written" in said
    assert "No performance was estimated in this run" in said


def test_everything_written_is_escaped(made: Made) -> None:
    planted = '<script>alert("x")</script>'
    made.frames["performance"] = made.frames["performance"].with_columns(model_digest=pl.lit(planted))
    made.frames["heterogeneity"] = made.frames["heterogeneity"].with_columns(groups_left_out=pl.lit('"><img src=x onerror=y>'))
    made.frames["attrition"] = made.frames["attrition"].with_columns(step=pl.col("step") + pl.lit(" <b>&"))
    page = written(made)
    assert planted not in page
    assert html.escape(planted) in page
    assert "<img" not in page
    assert "<b>" not in page
    read(page)


def test_the_same_tables_give_the_same_bytes(made: Made) -> None:
    shuffled = {name: frame.sample(fraction=1.0, shuffle=True, seed=7) for name, frame in made.frames.items()}
    first = compose(made.study, made.tables())
    again = compose(made.study, RunTables(made.tables().run, shuffled))
    assert render(first) == render(again)
    assert [picture.svg for picture in first.pictures] == [picture.svg for picture in again.pictures]


def test_no_path_and_no_key_of_the_study_file_appears(page: str) -> None:
    for hidden in ("/secret", "pseudonym_key", "workspace", "KEY"):
        assert hidden not in page


def test_defaults_are_marked(page: str) -> None:
    said = words(page)
    assert "match.before_days 180 study file" in said
    assert "match.index_series nearest default" in said


def test_tables_are_semantic(page: str) -> None:
    n_tables = page.count("<table>")
    assert page.count("<caption>") == page.count("<thead>") == n_tables
    assert page.count('scope="col"') > n_tables
    assert '<html lang="en">' in page
