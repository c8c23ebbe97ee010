"""The word lists beside this module, and how text is folded before it is compared with them."""

from __future__ import annotations

import functools
import re
import unicodedata
from importlib import resources
from typing import Any

import yaml


@functools.cache
def vocabulary(name: str) -> Any:
    """One of the YAML files of this package."""
    return yaml.safe_load((resources.files("ospor_batch.catalog") / f"{name}.yaml").read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=65536)
def fold(text: str | None) -> str:
    """Lower case, one width, and blanks for the signs that join words in DICOM text."""
    plain = unicodedata.normalize("NFKC", text or "").casefold()
    return " ".join(re.sub(r"[_^\\,;:()\[\]]", " ", plain).split())


@functools.cache
def pattern(expressions: tuple[str, ...]) -> re.Pattern[str]:
    """One expression that fits where any of these does."""
    return re.compile("|".join(f"(?:{one})" for one in expressions))


def says(text: str | None, kind: str) -> bool:
    """Whether text holds a word of image_kinds.yaml."""
    return bool(pattern(tuple(vocabulary("image_kinds")[kind])).search(fold(text)))


def sop_class_is(uid: str | None, kind: str) -> bool:
    """Whether a UID stands in a list of sop_classes.yaml."""
    return any(uid == one or (one.endswith(".") and (uid or "").startswith(one)) for one in vocabulary("sop_classes")[kind])
