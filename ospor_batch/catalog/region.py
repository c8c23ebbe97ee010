"""Which part of the body a series shows: from the tag, else a description, else where and how far it reaches."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ospor_batch.catalog.vocabulary import Vocabulary, vocabulary

# Declared judgement, on what an axial CT of an adult can cover: chest 250-400 mm, abdomen and pelvis 400-520 mm, both together
# more than 550 mm; more than 850 mm (eyes to thighs of a PET/CT) is a whole body. Shorter stacks may be anything.
TRUNK_MM = (550.0, 850.0)
TRUNK_FIELD_MM = 300.0  # narrower fields show a head, a limb or a detail
SAME_COVERAGE = 0.9  # share of the longer of two stacks of one frame of reference that both cover
BY_NEIGHBOUR = "position"


def body_region(
    tag: str | None, *, descriptions: Sequence[str | None], words: Vocabulary | None = None
) -> tuple[str, str, list[str]]:
    """Region, what the verdict rests on, and findings: the tag, else the first description that names a part."""
    words = words or vocabulary()
    by_tag = words.every("body_regions", tag)
    by_text = next((parts for text in descriptions if (parts := words.every("body_regions", text))), set())
    if by_tag:
        is_split = bool(by_text) and not by_tag & by_text and "whole_body" not in by_tag | by_text
        return _region(by_tag, words), "tag", ["body_region_contradicted"] if is_split else []
    if by_text:
        return _region(by_text, words), "description", []
    return "unknown", "none", []


def region_by_extent(*, orientation: str, extent_mm: float | None, field_mm: float | None) -> str | None:
    """Region that only a stack this long can show; null when its length leaves it open."""
    if orientation != "axial" or extent_mm is None or field_mm is None or field_mm < TRUNK_FIELD_MM:
        return None
    if extent_mm >= TRUNK_MM[1]:
        return "whole_body"
    return "chest_abdomen_pelvis" if extent_mm >= TRUNK_MM[0] else None


def with_regions_by_position(series: pl.DataFrame) -> pl.DataFrame:
    """Give series without a region that of the stacks of the same study that cover the same place, where these agree.

    Same place: one frame of reference and the same normal, at least 0.9 of the longer stack in common. Rows in = rows out;
    a verdict of an earlier call is taken back first, so that a second call changes nothing.
    """
    own = pl.col("body_region_source") != BY_NEIGHBOUR
    rows = series.with_columns(
        body_region=pl.when(own).then("body_region").otherwise(pl.lit("unknown")),
        body_region_source=pl.when(own).then("body_region_source").otherwise(pl.lit("none")),
    )
    place = ["center", "study_key", "frame_of_reference_uid", "orientation"]
    span = ["stack_start_mm", "stack_end_mm"]
    placed = rows.filter(pl.all_horizontal(pl.col(*span, "frame_of_reference_uid").is_not_null()), ~pl.col("is_localizer"))
    placed = placed.filter(pl.col("frame_of_reference_uid") != "")
    seen = placed.filter(pl.col("body_region_source").is_in(["tag", "description"])).select(*place, *span, "body_region")
    wanted = placed.filter(pl.col("body_region_source") == "none").select("center", "series_key", *place[1:], *span)
    pairs = wanted.join(seen, on=place, suffix="_of_other")
    common = pl.min_horizontal(span[1], f"{span[1]}_of_other") - pl.max_horizontal(span[0], f"{span[0]}_of_other")
    longer = pl.max_horizontal(pl.col(span[1]) - pl.col(span[0]), pl.col(f"{span[1]}_of_other") - pl.col(f"{span[0]}_of_other"))
    found = (
        pairs.filter(longer > 0, common >= SAME_COVERAGE * longer)
        .group_by("center", "series_key")
        .agg(pl.col("body_region").unique().alias("regions"))
        .filter(pl.col("regions").list.len() == 1)
        .select("center", "series_key", by_position=pl.col("regions").list.first())
    )
    joined = rows.join(found, on=["center", "series_key"], how="left", maintain_order="left")
    is_found = pl.col("by_position").is_not_null()
    return joined.with_columns(
        body_region=pl.coalesce("by_position", "body_region"),
        body_region_source=pl.when(is_found).then(pl.lit(BY_NEIGHBOUR)).otherwise("body_region_source"),
    ).drop("by_position")


def _region(named: set[str], words: Vocabulary) -> str:
    """The region of parts that stand together; a site may name several parts by their region."""
    parts_of = {region: parts for parts, region in words.regions.items() if region not in parts}
    parts = set[str]().union(*(parts_of.get(name, {name}) for name in named))
    if "whole_body" in parts:
        return "whole_body"
    if len(parts) == 1:
        return next(iter(parts))
    return words.regions.get(frozenset(parts), "other")
