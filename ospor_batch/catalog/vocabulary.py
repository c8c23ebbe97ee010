"""The word lists beside this module, a site's own words before them, and how text is folded before it is compared."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, NamedTuple

import yaml

BY_VENDOR = {"kernels": "class", "models": "model"}  # file -> the key that names an entry
BY_NAME = {"vendors": "vendor", "body_regions": "part", "contrast": "says", "views": "view", "image_kinds": "kind"}
CONTRAST_LISTS = ("evidence", "phases", "routes")


class Words(NamedTuple):
    """Patterns that a site adds to a list: vendors, models/ge, kernels/ge, body_regions, evidence, views, image_kinds ..."""

    list: str
    name: str
    patterns: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Named patterns by list, in order; digest: SHA-256 (first 16 digits) over all of them.

    n_added: how many of a list are a site's own. They are heard first: what they fit is taken out of a text before the shipped
    ones are sought in what is left, so that a site can overrule a word without losing those beside it.
    """

    lists: Mapping[str, tuple[tuple[str, re.Pattern[str]], ...]]
    regions: Mapping[frozenset[str], str]
    digest: str
    n_added: Mapping[str, int] = field(default_factory=dict)

    def first(self, of: str, text: str | None) -> str | None:
        """Name of the first entry of a list that fits; null when none does or there is no text."""
        folded = fold(text)
        return next((name for name, fits in self.lists.get(of, ()) if fits.search(folded)), None) if folded else None

    def every(self, of: str, text: str | None) -> set[str]:
        """Names of all entries of a list that fit."""
        found, left = self._added(of, fold(text))
        return found | {name for name, fits in self._shipped(of) if fits.search(left)} if left else found

    def says(self, text: str | None, name: str, *, of: str = "image_kinds") -> bool:
        """Whether text holds a word of one entry."""
        found, left = self._added(of, fold(text))
        return name in found or any(fits.search(left) for entry, fits in self._shipped(of) if entry == name and left)

    def without(self, text: str | None, name: str, *, of: str) -> str:
        """Folded text with the words of one entry blanked out."""
        left = fold(text)
        for entry, fits in self.lists[of]:
            left = fits.sub(" ", left) if entry == name else left
        return left

    def _shipped(self, of: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
        return self.lists.get(of, ())[self.n_added.get(of, 0) :]

    def _added(self, of: str, folded: str) -> tuple[set[str], str]:
        """Names of a site's own entries that fit, and what they leave of a folded text."""
        found, left = set[str](), folded
        for name, fits in self.lists.get(of, ())[: self.n_added.get(of, 0)]:
            if fits.search(folded):
                found.add(name)
                left = " ".join(fits.sub(" ", left).split())
        return found, left


@functools.lru_cache(maxsize=16)
def vocabulary(added: tuple[Words, ...] = ()) -> Vocabulary:
    """The shipped lists with a site's words before them, so that they win."""
    entries = [*added, *_shipped()]
    lists: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for entry in entries:
        lists.setdefault(entry.list, []).append((entry.name, _pattern(entry.patterns)))
    regions = {frozenset(entry["parts"]): str(entry["region"]) for entry in _read("body_regions")["regions"]}
    told = json.dumps([entries, sorted((sorted(parts), region) for parts, region in regions.items())])
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    n_added = Counter(entry.list for entry in added)
    return Vocabulary({name: tuple(found) for name, found in lists.items()}, regions, digest, n_added)


@functools.cache
def names_of(of: str) -> tuple[str, ...]:
    """Names that the shipped lists use in one list, sorted."""
    return tuple(sorted({entry.name for entry in _shipped() if entry.list == of}))


@functools.lru_cache(maxsize=65536)
def fold(text: str | None) -> str:
    """Lower case, one width, and blanks for the signs that join words in DICOM text."""
    plain = unicodedata.normalize("NFKC", text or "").casefold()
    return " ".join(re.sub(r"[_^\\,;:()\[\]]", " ", plain).split())


def sop_class_is(uid: str | None, kind: str) -> bool:
    """Whether a UID stands in a list of sop_classes.yaml."""
    return any(uid == one or (one.endswith(".") and (uid or "").startswith(one)) for one in _read("sop_classes")[kind])


@functools.cache
def _read(name: str) -> Any:
    return yaml.safe_load((resources.files("ospor_batch.catalog") / f"{name}.yaml").read_text(encoding="utf-8"))


@functools.cache
def _shipped() -> tuple[Words, ...]:
    return tuple(_words())


def _words() -> Iterator[Words]:
    for file, named in BY_VENDOR.items():
        for vendor, entries in _read(file).items():
            yield from (Words(f"{file}/{vendor}", str(e[named]), tuple(e["patterns"])) for e in entries)
    for file in ("vendors", "views", "image_kinds"):
        yield from (Words(file, str(e[BY_NAME[file]]), tuple(e["patterns"])) for e in _read(file))
    yield from (Words("body_regions", str(e["part"]), tuple(e["patterns"])) for e in _read("body_regions")["parts"])
    for of in CONTRAST_LISTS:
        yield from (Words(of, str(e["says"]), tuple(e["patterns"])) for e in _read("contrast")[of])


def _pattern(expressions: tuple[str, ...]) -> re.Pattern[str]:
    """One expression that fits where any of these does."""
    return re.compile("|".join(f"(?:{one})" for one in expressions), re.IGNORECASE)  # sites write as they speak
