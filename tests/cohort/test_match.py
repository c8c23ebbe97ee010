"""Which label stands for which image: against a brute-force matcher and reference results."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.cohort import pairing
from ospor_batch.cohort.match import lots, prevalence_index, rank_pairs
from ospor_batch.cohort.pairing import in_window, pair
from ospor_batch.cohort.windows import window_table, windowed

DAY = date(2022, 1, 1)
PAIR = ["series_key", "label_key"]
IMAGE = {"center": pl.String, "patient_key": pl.String, "series_key": pl.String, "image_date": pl.Date}
LABEL = {
    "center": pl.String,
    "patient_key": pl.String,
    "label_key": pl.String,
    "label_date": pl.Date,
    "is_osteoporosis": pl.Boolean,
}
days = st.integers(0, 12)  # few days, so that ties abound
people = st.sampled_from(["A", "B", "C"])


def images_of(rows):
    return pl.DataFrame([("c", p, f"i{k}", DAY + timedelta(d)) for k, (p, d) in enumerate(rows)], schema=IMAGE, orient="row")


def labels_of(rows):
    made = [("c", p, f"l{k}", DAY + timedelta(d), d % 2 == 0) for k, (p, d) in enumerate(rows)]
    return pl.DataFrame(made, schema=LABEL, orient="row")


def matched(images, labels, *, before, after, index_series="nearest"):
    candidates = pair(images, labels).filter(in_window(before_days=before, after_days=after))
    return rank_pairs(candidates, index_series=index_series)


def greedy(pairs, rank):
    """Matches when a label may stand for one series only: the best pair, then the best of what is left."""
    found, series, labels = set(), set(), set()
    for p in sorted(pairs, key=rank):
        if p[2] not in series and p[4] not in labels:
            found.add((p[0], p[2], p[4], p[3]))
            series.add(p[2])
            labels.add(p[4])
    return found


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(people, days), max_size=9),
    st.lists(st.tuples(people, days), max_size=9),
    st.integers(0, 8),
    st.sampled_from(["nearest", "after_first"]),
)
def test_a_label_that_may_be_used_once_goes_to_its_best_pair(image_rows, label_rows, width, prefer):
    images, labels = images_of(image_rows), labels_of(label_rows)
    candidates = pair(images, labels).filter(in_window(before_days=width, after_days=width))
    ranked = rank_pairs(candidates, index_series="all", prefer=prefer, reuse="forbid")
    pairs = [tuple(r) for r in candidates.select("patient_key", "image_date", "series_key", "gap_days", "label_key").rows()]
    side = lambda p: p[3] < 0 if prefer == "after_first" else False  # noqa: E731
    expected = greedy(pairs, lambda p: (p[0], side(p), abs(p[3]), p[3] < 0, p[1], p[2], p[4]))
    found = ranked.filter("is_match").select("patient_key", "series_key", "label_key", "gap_days")
    assert set(found.iter_rows()) == expected
    assert found["label_key"].is_unique().all()
    assert found["series_key"].is_unique().all()
    assert ranked.height == candidates.height
    assert ranked.filter(pl.col("is_match") != (pl.col("candidate_rank") == 1)).height == 0
    assert ranked.filter(pl.col("is_match") != pl.col("lost_by").is_null()).height == 0
    # a series stays without a label only where others took all of its labels
    alone = ranked.filter(~pl.col("is_match").any().over("series_key"))
    assert set(alone["lost_by"]) <= {"label_taken"}
    assert alone.group_by("series_key").agg(pl.col("candidate_rank").min())["candidate_rank"].to_list().count(2) == (
        alone["series_key"].n_unique()
    )


def test_under_other_index_rules_a_label_stands_for_one_series_anyway():
    images, labels = images_of([("A", 1), ("A", 2)]), labels_of([("A", 2)])
    once = rank_pairs(pair(images, labels), index_series="nearest", reuse="forbid")
    assert once.equals(rank_pairs(pair(images, labels), index_series="nearest"))
    every = rank_pairs(pair(images, labels), index_series="all")
    assert every["is_match"].to_list() == [True, True]


def brute_force(images, labels, *, before, after, policy, lot):
    """Methods M1 by loops: {(person, series, label)} of the matches."""
    pairs = [
        (i["patient_key"], i["image_date"], i["series_key"], (lab["label_date"] - i["image_date"]).days, lab["label_key"])
        for i in images.to_dicts()
        for lab in labels.to_dicts()
        if i["patient_key"] == lab["patient_key"] and -before <= (lab["label_date"] - i["image_date"]).days <= after
    ]
    rank = lambda p: (abs(p[3]), p[3] < 0, p[1], p[2], p[4])  # noqa: E731
    found = set()
    for person in {p[0] for p in pairs}:
        own = [p for p in pairs if p[0] == person]
        if policy == "all":
            found |= {min((p for p in own if p[2] == s), key=rank) for s in {p[2] for p in own}}
            continue
        if policy == "first":
            index = min(own, key=lambda p: (p[1], p[2]))[2]
        elif policy == "last":
            index = min(own, key=lambda p: (-p[1].toordinal(), p[2]))[2]
        elif policy == "random":
            index = min(own, key=lambda p: (lot[p[2]], p[2]))[2]
        else:
            index = None
        found.add(min((p for p in own if index in (None, p[2])), key=rank))
    return {(p[0], p[2], p[4], p[3]) for p in found}


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(people, days), max_size=9),
    st.lists(st.tuples(people, days), max_size=9),
    st.integers(0, 8),
    st.integers(0, 8),
    st.sampled_from(["nearest", "first", "last", "random", "all"]),
)
def test_the_matcher_equals_brute_force(image_rows, label_rows, before, after, policy):
    images, labels = images_of(image_rows), labels_of(label_rows)
    images = images.with_columns(lots(images["series_key"], seed=3, key=b"k"))
    ranked = matched(images, labels, before=before, after=after, index_series=policy)
    found = ranked.filter("is_match").select("patient_key", "series_key", "label_key", "gap_days")
    lot = dict(images.select("series_key", "lot").iter_rows())
    assert set(found.iter_rows()) == brute_force(images, labels, before=before, after=after, policy=policy, lot=lot)
    assert found.height == found.select("patient_key", *(["series_key"] if policy == "all" else [])).n_unique()
    # every pair inside the window is kept, the match alone has rank 1, every loser says what it lost by
    assert ranked.height == sum(p == q and -before <= e - d <= after for p, d in image_rows for q, e in label_rows)
    assert ranked.filter(pl.col("is_match") != (pl.col("candidate_rank") == 1)).height == 0
    assert ranked.filter(pl.col("is_match") != pl.col("lost_by").is_null()).height == 0


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(people, days), max_size=8), st.lists(st.tuples(people, days), max_size=8), st.randoms())
def test_the_order_of_rows_decides_nothing(image_rows, label_rows, random):
    images, labels = images_of(image_rows), labels_of(label_rows)
    once = matched(images, labels, before=5, after=5)
    shuffled = [pl.DataFrame(random.sample(f.to_dicts(), f.height), schema=f.schema) for f in (images, labels)]
    found = matched(*shuffled, before=5, after=5)
    assert found.sort(PAIR).equals(once.sort(PAIR))


@pytest.mark.parametrize(
    ("image_rows", "label_rows", "lost_by"),
    [
        ([("A", 5)], [("A", 6), ("A", 8)], ["larger_gap"]),
        ([("A", 5)], [("A", 4), ("A", 6)], ["label_before_image"]),
        ([("A", 5), ("A", 7)], [("A", 6), ("A", 8)], ["larger_gap", "label_before_image", "later_image"]),
        ([("A", 5), ("A", 5)], [("A", 5)], ["later_image_key"]),
        ([("A", 5)], [("A", 5), ("A", 5)], ["later_label_key"]),
    ],
)
def test_losers_say_what_they_lost_by(image_rows, label_rows, lost_by):
    ranked = matched(images_of(image_rows), labels_of(label_rows), before=5, after=5)
    assert sorted(ranked["lost_by"].drop_nulls()) == sorted(lost_by)


def test_pairs_of_a_series_that_the_index_rule_passes_over_say_so():
    ranked = matched(images_of([("A", 1), ("A", 5)]), labels_of([("A", 5)]), before=9, after=9, index_series="first")
    assert ranked.sort("candidate_rank").select("series_key", "lost_by").rows() == [("i0", None), ("i1", "index_series_rule")]


def test_a_key_is_one_person_wherever_the_label_was_measured():
    """Equal numbers of two centers have two keys; one key at two centers is a crosswalk's."""
    images = images_of([("A", 1), ("B", 1)]).with_columns(center=pl.lit("north"))
    found = pair(images, labels_of([("A", 1), (None, 1)]))
    assert found.select("patient_key", "center", "label_center").rows() == [("A", "north", "c")]


def test_people_of_one_hash_never_meet(monkeypatch):
    monkeypatch.setattr(pairing, "_who", lambda: pl.col("patient_key").hash().clip(7, 7))
    monkeypatch.setattr(pairing, "ROUNDS", 2)
    images, labels = images_of([("A", 1), ("B", 1), (None, 3), ("A", 4)]), labels_of([("B", 2), ("A", 1), ("A", 9)])
    found = pair(images, labels).select("series_key", "label_key", "gap_days").sort("series_key", "label_key")
    assert found.rows() == [("i0", "l1", 0), ("i0", "l2", 8), ("i1", "l0", 1), ("i3", "l1", -3), ("i3", "l2", 5)]


@pytest.mark.parametrize("within", [(0, 0), (30, 5), (5, 300), (10**9, 10**9)])
def test_a_window_finds_what_a_join_finds_whatever_was_read_and_however_often_people_were_measured(tmp_path, within):
    random = np.random.default_rng(7)
    n_images, n_labels, start = 6000, 900, date(1969, 6, 1)

    def rows(n, kind):
        who = [f"p{i}" if i else None for i in random.integers(0, 1500, n)]
        day = [start + timedelta(int(d)) if d % 50 else None for d in random.integers(0, 900, n)]
        return pl.DataFrame(
            {
                "center": "c",
                "patient_key": who,
                f"{kind}_key": [f"{kind}{i}" for i in range(n)],
                f"{'image' if kind == 'series' else kind}_date": day,
            }
        )

    images, labels = rows(n_images, "series"), rows(n_labels, "label")
    often = labels.head(60).with_columns(patient_key=pl.lit("p1"), label_key="p1" + pl.col("label_key"))
    labels = pl.concat([labels, often])  # more labels than are stepped over one by one
    for name, table in (("series", images), ("label", labels)):
        table.write_parquet(tmp_path / f"{name}.parquet", row_group_size=700)
    found = pair(pl.scan_parquet(tmp_path / "series.parquet"), pl.scan_parquet(tmp_path / "label.parquet"), within=within)
    gap = (pl.col("label_date") - pl.col("image_date")).dt.total_days().alias("gap_days")
    joined = images.join(labels.rename({"center": "label_center"}), on="patient_key").with_columns(gap)
    expected = joined.filter(pl.col("gap_days").is_between(-within[0], within[1])).select(found.columns)
    assert expected.height > 0
    assert found.sort(PAIR).equals(expected.sort(PAIR))
    assert found["series_key"].equals(found.join(images.with_row_index(), on="series_key").sort("index")["series_key"])


def test_the_prevalence_index_is_blind_to_labels_and_one_a_person():
    images = images_of([("A", 5), ("A", 2), ("A", 2), ("B", 9)])
    first = prevalence_index(images, rule="first")
    assert set(first["series_key"]) == {"i1", "i3"}
    drawn = images.with_columns(lots(images["series_key"], seed=1, key=b"k"))
    random = prevalence_index(drawn, rule="random")
    assert random["patient_key"].sort().to_list() == ["A", "B"]
    assert prevalence_index(drawn.reverse(), rule="random").equals(random)


def test_lots_depend_on_seed_and_key_alone():
    keys = pl.Series(["a", "b", "c"])
    assert lots(keys, seed=1, key=b"k").to_list() == lots(keys.reverse(), seed=1, key=b"k").reverse().to_list()
    assert len({*lots(keys, seed=1, key=b"k"), *lots(keys, seed=2, key=b"k"), *lots(keys, seed=1, key=b"m")}) == 9


def test_the_window_table_counts_gained_lost_and_changed_matches():
    images = images_of([("A", 10), ("B", 10), ("C", 0)])
    labels = labels_of([("A", 11), ("B", 14), ("C", 12)])
    asked = {"declared": (5, 5), "sensitivity_days": (2, 5, 20)}
    rows = windowed(pair(images, labels), **asked, index_series="nearest", event="is_osteoporosis")
    found = window_table(rows, **asked)
    assert found.select("before_days", "is_declared", "n_persons", "n_events", "n_gained", "n_lost", "n_changed").rows() == [
        (2, False, 1, 0, 0, 1, 0),
        (5, True, 2, 1, 0, 0, 0),
        (20, False, 3, 2, 1, 0, 0),
    ]
    asked = {"declared": (2, 2), "sensitivity_days": (20,)}
    two = pair(images_of([("A", 0), ("A", 9)]), labels_of([("A", 10)]))
    first = windowed(two, **asked, index_series="first", event="is_osteoporosis")
    assert window_table(first, **asked)["n_changed"].to_list() == [0, 1]
    assert first.filter(pl.col("after_days") == 20).select("change", "is_event").rows() == [("changed", True)]


def oracle(shared):
    folder = shared / "oracles" / "matching"
    found = sorted(folder.glob("index_pairs_b*_a*.csv"))
    if not found:
        pytest.skip(f"no reference matches in {folder}")
    images = pl.read_csv(folder / "images.csv", try_parse_dates=True)
    labels = pl.read_csv(folder / "labels.csv", try_parse_dates=True)
    images = images.select(pl.lit("c").alias("center"), "image_date", patient_key="patient_id", series_key="image_id")
    labels = labels.select(pl.lit("c").alias("center"), "label_date", patient_key="patient_id", label_key="label_id")
    cases = [(path, *map(int, re.fullmatch(r"index_pairs_b(\d+)_a(\d+)\.csv", path.name).groups())) for path in found]
    return images, labels, cases


def test_oracle_index_pairs(shared):
    images, labels, cases = oracle(shared)
    for path, before, after in cases:
        expected = pl.read_csv(path).rename({"patient_id": "patient_key", "image_id": "series_key", "label_id": "label_key"})
        found = matched(images, labels, before=before, after=after).filter("is_match").select(expected.columns)
        assert found.sort("patient_key").equals(expected.sort("patient_key")), path.name


def test_oracle_counts(shared):
    images, labels, cases = oracle(shared)
    counts = shared / "oracles" / "matching" / "expected_counts.json"
    if not counts.is_file():
        pytest.skip(f"no {counts}")
    windows = json.loads(counts.read_text())["windows"]
    for _, before, after in cases:
        expected = windows[f"b{before}_a{after}"]
        ranked = matched(images, labels, before=before, after=after)
        matches = ranked.filter("is_match")
        assert ranked.height == expected["n_candidate_pairs"]
        assert ranked["series_key"].n_unique() == expected["n_images_with_any_label"]
        assert matches.height == expected["n_patients_matched"]
        assert matches["gap_days"].abs().median() == expected["median_abs_gap"]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(people, days), max_size=9),
    st.lists(st.tuples(people, days), max_size=9),
    st.integers(0, 8),
    st.integers(0, 8),
    st.sampled_from(["before_first", "after_first"]),
)
def test_a_preferred_side_wins_over_a_smaller_gap(image_rows, label_rows, before, after, prefer):
    images, labels = images_of(image_rows), labels_of(label_rows)
    inside = pair(images, labels).filter(in_window(before_days=before, after_days=after))
    ranked = rank_pairs(inside, index_series="nearest", prefer=prefer)
    for person in inside["patient_key"].unique():
        own = inside.filter(pl.col("patient_key") == person).to_dicts()
        is_second = lambda p: p["gap_days"] > 0 if prefer == "before_first" else p["gap_days"] < 0  # noqa: E731
        best = min(
            own,
            key=lambda p: (
                is_second(p),
                abs(p["gap_days"]),
                p["gap_days"] < 0,
                p["image_date"],
                p["series_key"],
                p["label_key"],
            ),
        )
        match = ranked.filter("is_match", pl.col("patient_key") == person).to_dicts()
        assert [(m["series_key"], m["label_key"]) for m in match] == [(best["series_key"], best["label_key"])]
        lost = ranked.filter(pl.col("patient_key") == person, pl.col("lost_by") == "other_side")
        assert lost.height == (0 if is_second(best) else sum(is_second(p) for p in own))
