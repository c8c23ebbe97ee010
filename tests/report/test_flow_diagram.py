"""The flow shows exactly the numbers of attrition, from the first file to the people of the tables."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree as ET

import polars as pl

from ospor_batch.report.flow_diagram import REFERENCE_LEVELS, Box, Exclusion, described, draw, flow
from tests.report.made import NAME, REFERENCE, Made

SVG = "{http://www.w3.org/2000/svg}"


def test_every_exclusion_stands_in_a_box_with_its_count(made: Made) -> None:
    boxes = flow(made.frames["attrition"], recipe=NAME, reference_id=REFERENCE)
    shown = made.frames["attrition"].filter(pl.col("level").is_in(["file", "instance", "series", "person"]))
    wanted = shown.group_by("level", "step", "reason").agg(pl.col("n_excluded").sum()).filter(pl.col("n_excluded") > 0)
    found = {(box.level, left.step, left.reason, left.n) for box in boxes for left in box.left}
    assert found == set(wanted.iter_rows())


def test_boxes_follow_the_chain_and_subtract(made: Made) -> None:
    boxes = flow(made.frames["attrition"], recipe=NAME, reference_id=REFERENCE)
    assert [box.says for box in boxes] == [
        "files found", "instances", "instances kept", "series", "series kept", "index series", "persons", "persons eligible",
        "persons with a label in the window", "persons read by the predictor", "persons in a test partition, analysed",
    ]  # fmt: skip
    for box, following in pairwise(boxes):
        if box.level == following.level:
            assert box.n - box.n_left == following.n
    last = made.frames["attrition"].filter(level="person").group_by("center").agg(pl.col("n_out").last())
    assert boxes[-1].n == last["n_out"].sum()


def test_people_read_without_a_refusal_still_have_their_box(made: Made) -> None:
    rows = made.frames["attrition"].filter(pl.col("stage") != "infer")
    boxes = flow(rows, recipe=NAME, reference_id=REFERENCE)
    read = next(box for box in boxes if box.says == "persons read by the predictor")
    assert read.n == rows.filter(level="person", reason="label_outside_window")["n_out"].sum()


def test_steps_of_another_recipe_do_not_mix_in(made: Made) -> None:
    mine = made.frames["attrition"]
    other = mine.filter(recipe=NAME).with_columns(recipe=pl.lit("other"), n_in=pl.col("n_in") + 7, n_out=pl.col("n_out") + 7)
    both = pl.concat([other, mine])
    kept = {"recipe": NAME, "reference_id": REFERENCE}
    assert flow(both, **kept) == flow(mine, **kept)


def test_the_drawing_holds_every_number_and_says_it_in_words(made: Made) -> None:
    boxes = flow(made.frames["attrition"], recipe=NAME, reference_id=REFERENCE)
    drawn = ET.fromstring(draw(boxes, title="Flow & <fate>", name="flow"))
    said = " ".join(element.text or "" for element in drawn.iter(f"{SVG}text"))
    for box in boxes:
        assert f"{box.n} {box.says.split()[0]}" in said
        for left in box.left:
            assert f"{left.n}  " in said
    assert drawn.findtext(f"{SVG}title") == "Flow & <fate>"
    assert drawn.findtext(f"{SVG}desc") == described(boxes)


def test_who_fails_a_criterion_is_not_called_by_its_name() -> None:
    left = (
        Exclusion("120 kV", "120_kv", 16), Exclusion("120 kV: unknown", "120_kv_unknown", 2),
        Exclusion("unenhanced", "unenhanced", 3), Exclusion("not a localizer", "localizer", 4), Exclusion("CT", "not_ct", 5),
    )  # fmt: skip
    drawn = ET.fromstring(draw((Box("series", "series", 30, left),), title="Flow", name="flow"))
    said = [element.text for element in drawn.iter(f"{SVG}text")]
    assert said[2:] == [
        "16  not kept by: 120 kV", "2  120 kV: unknown", "3  not kept by: unenhanced", "4  localizer", "5  not ct (at: CT)",
    ]  # fmt: skip


def test_the_drawing_keeps_everything_inside_its_frame(made: Made) -> None:
    boxes = flow(made.frames["attrition"], recipe=NAME, reference_id=REFERENCE)
    drawn = ET.fromstring(draw(boxes, title="Flow", name="flow"))
    width, height = (float(value) for value in drawn.attrib["viewBox"].split()[2:])
    for box in drawn.iter(f"{SVG}rect"):
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height


def test_the_reference_side_has_a_flow_of_its_own(made: Made) -> None:
    boxes = flow(made.frames["attrition"], recipe=NAME, reference_id=REFERENCE, levels=REFERENCE_LEVELS)
    assert [box.says for box in boxes] == ["rows of the exports", "rows read"]
    assert boxes[0].left[0].reason == "invalid_date"


def test_no_attrition_no_box(made: Made) -> None:
    assert flow(made.frames["attrition"].clear(), recipe=NAME, reference_id=REFERENCE) == ()
