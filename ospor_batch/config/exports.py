"""Files of a center that are not images: exports of measurements and of events, with their column maps."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ospor_batch.config.sections import Name, Section, Site, refuse_repeats, refuse_unknown
from ospor_batch.contracts import contract

NOT_A_COLUMN = {"exam_key", "patient_key", "center", "export", "row_number", "flags", "exam_kind"}
LONG_COLUMNS = {"site", "bmd_g_cm2", "t_score", "z_score", "area_cm2"}
MORE_COLUMNS = {"patient_id", "birth_date", "exam_number"}
CODED_COLUMNS = {"code", "value"}


class ColumnSource(Section):
    """A column of the export, with the unit it is written in, or one value for every row."""

    column: str | None = None
    unit: str | None = None
    value: str | float | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.column is None) == (self.value is None):
            raise ValueError('give either { column = "NAME" } or { value = ... }')
        return self


class MappedFile(Section):
    """A table of a center, and which of its columns means what."""

    path: str
    columns: dict[str, ColumnSource]
    date_format: str = "%Y-%m-%d"
    codes: dict[str, tuple[str, ...]] = {}
    date_shift: str | None = None  # name of the de-identification that shifted its dates; none: true dates
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    header_rows: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Rows of the file that hold the header, such as [3], or [1, 2] under merged cells; empty for its first filled row."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or not isinstance(raw.get("columns"), dict):
            return raw
        full = {k: {"column": v} if isinstance(v, str) else v for k, v in raw["columns"].items()}
        return {**raw, "columns": full}

    @model_validator(mode="after")
    def _header_rows_follow(self) -> Self:
        rows = self.header_rows
        if rows and rows != tuple(range(rows[0], rows[0] + len(rows))):
            raise ValueError(f"header_rows is {list(rows)}, expected rows that follow each other, such as [3] or [1, 2]")
        return self

    def _refuse_missing(self, needed: set[str]) -> None:
        if missing := needed - set(self.columns):
            raise ValueError(f"columns must name {', '.join(sorted(missing))}")


class Export(MappedFile):
    """An export of measurements: DXA, QCT or body composition."""

    kind: Literal["dxa", "qct", "body"]
    layout: Literal["wide", "long", "coded"] = "wide"
    t_reference: str = "unknown"
    phantom_material: Literal["k2hpo4", "caha", "unknown"] = "unknown"
    decimal: Literal[".", ","] = "."
    thousands: Literal[".", ",", "'", " "] | None = None  # what parts the thousands of a number; none: such a number is refused
    missing: tuple[str, ...] = ("", "NA", "N/A", "n/a", "-", ".", "null", "NULL")
    conflicts: Literal["refuse", "first"] = "refuse"
    sites: dict[Site, tuple[str, ...]] = {}
    units: dict[str, str] = {}
    sex_values: dict[Literal["female", "male", "other", "unknown"], tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.thousands == self.decimal:
            raise ValueError(f"thousands and decimal are both {self.decimal!r}; a number can then be read two ways")
        return self

    @model_validator(mode="after")
    def _columns_are_known(self) -> Self:
        allowed = (set(contract("exam").columns) - NOT_A_COLUMN) | MORE_COLUMNS
        of_layout = {"wide": set[str](), "long": LONG_COLUMNS, "coded": CODED_COLUMNS}[self.layout]
        refuse_unknown(set(self.columns), allowed | of_layout, "columns")
        refuse_unknown({*self.codes, *self.units}, allowed - MORE_COLUMNS, "codes and units")
        needed = {"patient_id", "exam_date"} | {"long": {"site"}, "coded": CODED_COLUMNS}.get(self.layout, set[str]())
        self._refuse_missing(needed)
        if self.layout == "long" and not self.sites:
            raise ValueError('a long layout needs sites, such as sites = { lumbar_spine = ["L1-L4"] }')
        if (self.layout == "coded") != bool(self.codes):
            raise ValueError('a coded layout, and no other, needs codes, such as codes = { lumbar_spine_t = ["38267-1"] }')
        return self


class EventFile(MappedFile):
    """A file of fractures, operations, drugs and whatever else guards a match."""

    @model_validator(mode="after")
    def _columns_are_known(self) -> Self:
        refuse_unknown(set(self.columns), {"patient_id", "code", "start", "end"}, "columns")
        self._refuse_missing({"patient_id", "code", "start"})
        return self


class Center(Section):
    name: Name
    archives: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    calibration_phantom: Literal["in_view", "absent", "unknown"] = "unknown"  # in every CT of the archives, or in none
    date_shift: str | None = None  # of the archives; an export is matched with them only under the same name
    exports: tuple[Export, ...] = ()
    events: tuple[EventFile, ...] = ()

    @model_validator(mode="after")
    def _archives_differ(self) -> Self:
        refuse_repeats(list(self.archives), "archives")
        return self
