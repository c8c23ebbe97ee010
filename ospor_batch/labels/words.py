"""Words of exports (sex, menopause, maker, phantom) to the words of the contract."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping
from importlib import resources

import polars as pl
import yaml

from ospor_batch.contracts import contract

UNKNOWN = "unknown"


def worded(text: pl.Series, *, column: str, declared: Mapping[str, tuple[str, ...]] | None = None) -> pl.DataFrame:
    """Columns ``word`` and ``is_recognised`` for a text column of the exam.

    A declared word wins over a built-in one. Empty is unknown; a word that nobody declared is unknown too (other for the
    maker of a device) and not recognised.
    """
    words = dict(_built_in(column))
    for word, written in (declared or {}).items():
        words.update({_folded(text): word for text in written})
    elsewhere = "other" if column == "densitometer_vendor" else UNKNOWN
    distinct = [value for value in text.unique(maintain_order=True).to_list() if value is not None]
    found = {value: words.get(_folded(value)) for value in distinct}
    return pl.DataFrame(
        {
            "word": [UNKNOWN if v is None else found[v] or elsewhere for v in text.to_list()],
            "is_recognised": [v is None or found[v] is not None for v in text.to_list()],
        },
        schema={"word": pl.String, "is_recognised": pl.Boolean},
    )


@functools.cache
def worded_columns() -> tuple[str, ...]:
    """Columns of the exam that hold one of a few words."""
    return tuple(_tables())


def _folded(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


@functools.cache
def _built_in(column: str) -> Mapping[str, str]:
    allowed = set(dict(contract("exam").field(column).constraints)["enum"])
    found = {_folded(word): word for word in allowed}
    for word, written in _tables()[column].items():
        assert word in allowed, f"written_values.yaml: {column} has no {word}"
        found.update({_folded(text): word for text in written})
    return found


@functools.cache
def _tables() -> dict[str, dict[str, list[str]]]:
    text = resources.files("ospor_batch.labels").joinpath("written_values.yaml").read_text(encoding="utf-8")
    tables: dict[str, dict[str, list[str]]] = yaml.safe_load(text)
    return tables
