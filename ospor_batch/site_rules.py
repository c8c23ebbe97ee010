"""What a study file may say of its centers' words, patient numbers and stacks: sections [vocabulary], [linkage], [grading]."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ospor_batch.contracts import contract

Patterns = Annotated[tuple[str, ...], Field(min_length=1)]
NAMED_AFTER = {"vendors": "scanner_vendor", "body_parts": "body_region"}  # lists whose names are values of a column
LISTS = {"body_parts": "body_regions", "contrast": "evidence"}  # key of the study file -> word list, where they differ
Word = tuple[str, str, tuple[str, ...]]
ANYTHING = ("x", "7", "胸")  # a pattern that fits each of these tells nothing apart
SET_OR_NAME = r"\\.|\[(?:\\.|[^\]])*\]|\(\?P[<=]\w+[>)]"  # where a sign may stand without being sought


class Section(BaseModel):
    """A frozen part of the study file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(Section):
    """A name, and regular expressions for the ways in which a site writes it."""

    name: str
    patterns: Patterns

    @model_validator(mode="after")
    def _are_expressions(self) -> Self:
        for pattern in self.patterns:
            try:
                fits = re.compile(pattern, re.IGNORECASE)
            except re.error as error:
                raise ValueError(f"patterns has {pattern!r}, which is no regular expression: {error}") from None
            if fits.search("") or all(fits.search(one) for one in ANYTHING):
                raise ValueError(f"patterns has {pattern!r}, which fits every text")
            if sign := re.search("[_;]", re.sub(SET_OR_NAME, "", pattern)):
                raise ValueError(f"patterns has {pattern!r}, which fits no text: {sign[0]!r} is a blank in what is searched")
        return self


class VendorEntry(Entry):
    """An entry of one vendor's list."""

    vendor: str


class KernelEntry(VendorEntry):
    name: Literal["soft", "standard", "sharp"]


class ContrastEntry(Entry):
    name: Literal["tag_plain", "tag_silent", "neutral", "both", "without", "with"]


class PhaseEntry(Entry):
    name: Literal["arterial", "portal_venous", "nephrographic", "delayed", "perfusion"]


class ViewEntry(Entry):
    name: Literal["pa", "ap", "lateral", "frontal", "oblique", "other"]


class KindEntry(Entry):
    name: Literal[
        "localizer", "reformat", "spectral", "screen", "dose", "low_dose", "animal", "animal_radiograph", "implant",
        "no_implant", "phantom", "no_phantom",
    ]  # fmt: skip


class VocabularySection(Section):
    """Words of a site, heard before the shipped lists."""

    vendors: tuple[Entry, ...] = ()
    models: tuple[VendorEntry, ...] = ()
    kernels: tuple[KernelEntry, ...] = ()
    body_parts: tuple[Entry, ...] = ()
    contrast: tuple[ContrastEntry, ...] = ()
    phases: tuple[PhaseEntry, ...] = ()
    views: tuple[ViewEntry, ...] = ()
    image_kinds: tuple[KindEntry, ...] = ()

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for key, column in NAMED_AFTER.items():
            for entry in getattr(self, key):
                _refuse_other(entry.name, column, what=f"{key}.name")
        for of_vendor in (*self.models, *self.kernels):
            _refuse_other(of_vendor.vendor, "scanner_vendor", what="vendor")
        return self

    @property
    def words(self) -> tuple[Word, ...]:
        """(list, name, patterns) of every entry, in the order of the study file."""
        found: list[Word] = []
        for key in type(self).model_fields:
            for entry in getattr(self, key):
                of = LISTS.get(key, key)
                found.append((f"{of}/{entry.vendor}" if isinstance(entry, VendorEntry) else of, entry.name, entry.patterns))
        return tuple(found)


class LinkageSection(Section):
    """How written patient numbers become persons."""

    leading_zeros: Literal["keep", "strip"] = "keep"
    issuer: Literal["ignore", "key"] = "ignore"
    own_issuers: tuple[str, ...] = ()
    crosswalk: str | None = None


class GradingSection(Section):
    smallest_stack: Annotated[int, Field(ge=1)] = 3


def _refuse_other(name: str, column: str, *, what: str) -> None:
    allowed = [str(one) for one in dict(contract("series").field(column).constraints)["enum"]]
    if name not in allowed:
        raise ValueError(f"{what} is {name!r}, expected one of {', '.join(allowed)}")
