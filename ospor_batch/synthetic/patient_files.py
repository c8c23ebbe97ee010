"""Every file of one generated person, with the fault that the person carries and what must become of each file."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from ospor_batch.synthetic.anatomy import fitted
from ospor_batch.synthetic.arrays import arrays_of
from ospor_batch.synthetic.companions import coronal_reformats, dose_sheet, screen_capture
from ospor_batch.synthetic.ct import ProtocolName, Sampling, Scan, scan
from ospor_batch.synthetic.dose_report import dose_of, dose_report
from ospor_batch.synthetic.faults import NO_FAULT
from ospor_batch.synthetic.folders import MASK_NAME, MASKS, RESENT, file_of, folder_of
from ospor_batch.synthetic.headers import Series
from ospor_batch.synthetic.instances import Instance, ct_slices, other_content, radiograph_file, scout_file, turned
from ospor_batch.synthetic.masks import CORES, nifti, segmentation
from ospor_batch.synthetic.multiframe import enhanced_ct
from ospor_batch.synthetic.phantom import PIXEL_MM, cutting_field_mm, is_cut, phantoms_of
from ospor_batch.synthetic.population import Person
from ospor_batch.synthetic.radiograph import View, radiograph
from ospor_batch.synthetic.scout import scout
from ospor_batch.synthetic.tag_faults import ALL_FAULTS, SOUND, TagRates, draw_faults
from ospor_batch.synthetic.vendor import habit_of

SCOUT_SERIES, PLAIN_SERIES, CONTRAST_SERIES, CORONAL_SERIES, REPORT_SERIES, ENHANCED_SERIES, CAPTURE_SERIES = (
    1,
    2,
    3,
    4,
    5,
    6,
    99,
)
HEADER_BYTES = 500  # what is left of a file that was cut off in its header
LOST_BYTES = 3000  # what is lost of one that was cut off in its pixels
RESENT_SLICES = 3
CROPPED_MM = 220.0  # field of view that leaves the spine and cuts the trunk

Kind = Literal[
    "axial", "contrast", "scout", "coronal", "enhanced", "dose_report", "dose_sheet", "capture", "radiograph", "lateral",
    "mask_nifti", "mask_seg", "foreign",
]  # fmt: skip


@dataclass(frozen=True)
class FileOut:
    """One file: its path below the archive root, with forward slashes, its content and its fate.

    refusal: reason of the reject that the crawl must make of it, None where it must become an instance. copies: reason
    by which the catalog must keep one of the files of its SOP instance and refuse the others, None without copies.
    """

    path: str
    content: bytes
    kind: Kind
    sop_uid: str | None = None
    refusal: str | None = None
    copies: str | None = None


@dataclass(frozen=True)
class BesideRates:
    """Share of CT examinations with each kind of series beside the axial one; declared.

    lateral: share of radiographs with a lateral view beside; antero_posterior: share that lay in bed and not stood.
    """

    scout: float = 0.0
    coronal: float = 0.0
    dose_report: float = 0.0
    dose_sheet: float = 0.0
    capture: float = 0.0
    lateral: float = 0.0
    antero_posterior: float = 0.0


@dataclass(frozen=True)
class Detail:
    """How finely people are imaged, with which CT protocol, and what else their examinations hold.

    device: where images are computed, as arrays.arrays_of names it.
    """

    sampling: Sampling
    radiograph_matrix: int
    tags: TagRates = SOUND
    beside: BesideRates = BesideRates()
    protocol: ProtocolName = "lumbar"
    device: str = "cpu"


def patient_files(person: Person, *, detail: Detail, scanned: Scan | None = None) -> Iterator[FileOut]:
    """Every file of a person, in a fixed order; scanned is the index volume where it was made before."""
    if person.is_ct:
        yield from _ct_files(person, detail, scanned or scan_of(person, detail, is_contrast=person.is_contrast))
    if person.is_radiograph:
        for series, view in films_of(person, detail):
            film = radiograph(person, matrix=detail.radiograph_matrix, view=view, arrays=arrays_of(detail.device))
            yield _out(series, radiograph_file(series, film, view=view), "lateral" if view == "LATERAL" else "radiograph")
    if person.fault == "non_dicom_files":
        yield FileOut("reading list.txt", b"Cases to show on Monday\r\n", "foreign", refusal="not_dicom")
        yield FileOut("screenshot.dcm", _png(), "foreign", refusal="not_dicom")
        yield FileOut("transfer.tmp", b"", "foreign", refusal="empty_file")


def films_of(person: Person, detail: Detail) -> Iterator[tuple[Series, View]]:
    """The radiographs of a person with their views: a frontal one, three days before a CT, at times a lateral one beside."""
    day = person.image_date if not person.is_ct else person.image_date - timedelta(days=3)
    (lies, has_lateral), is_free = person.draws("views").random(2), person.fault == NO_FAULT
    views: list[View] = ["AP" if is_free and lies < detail.beside.antero_posterior else "PA"]
    if person.fault == "lateral_beside" or (is_free and has_lateral < detail.beside.lateral):
        views.append("LATERAL")
    for number, view in enumerate(views, start=1):
        yield replace(series_of(person, number), study_word="radiograph", image_date=day), view


def series_of(person: Person, number: int, *, tags: TagRates = SOUND) -> Series:
    """A CT series of a person as the images write it, with the tag faults that its number draws."""
    faults = draw_faults(person.draws("tags", number), tags)
    return Series(
        person, "ct", number, person.image_date, _written_id(person),
        is_age_known=person.fault != "age_unknown", is_contrast_tag_empty=person.fault == "contrast_tag_empty",
        is_kvp_known=person.fault != "kvp_absent", tag_faults=ALL_FAULTS if person.fault == "tags_absent" else faults,
    )  # fmt: skip


def scan_of(person: Person, detail: Detail, *, is_contrast: bool) -> Scan:
    """The person's volume as their scanner makes it."""
    habit = habit_of(person)
    return scan(
        person, sampling=_sampling(person, detail.sampling), spacing_mm=habit.spacing_mm, thickness_mm=habit.thickness_mm,
        is_contrast=is_contrast, protocol=detail.protocol, arrays=arrays_of(detail.device),
    )  # fmt: skip


def _sampling(person: Person, usual: Sampling) -> Sampling:
    """The field of view and matrix: rods ask for finer pixels than reduced archives have, and a field may end in them."""
    if person.fault == "cropped_field":
        return replace(usual, field_mm=CROPPED_MM)
    if not phantoms_of(person):
        return usual
    field = cutting_field_mm(fitted(person)) if is_cut(person) else usual.field_mm
    return Sampling(max(usual.matrix, math.ceil(field / PIXEL_MM)), field)


def index_series(person: Person, *, tags: TagRates = SOUND) -> Series:
    """The axial series that stands for the person."""
    return replace(series_of(person, PLAIN_SERIES, tags=tags), is_contrast=person.is_contrast)


def _ct_files(person: Person, detail: Detail, scanned: Scan) -> Iterator[FileOut]:
    plain = index_series(person, tags=detail.tags)
    yield from _slices(plain, scanned)
    if person.fault != "missing_mask":
        yield _mask(plain, scanned)
    yield from _beside(person, scanned, detail)
    if person.fault in {"contrast_beside", "enhanced_beside"}:
        other = scan_of(person, detail, is_contrast=True)
        if person.fault == "contrast_beside":
            enhanced = replace(plain, number=CONTRAST_SERIES, is_contrast=True)
            yield from (_out(enhanced, instance, "contrast") for instance in ct_slices(enhanced, other))
        else:
            whole = replace(plain, number=ENHANCED_SERIES, is_contrast=True)
            yield _out(whole, enhanced_ct(whole, other), "enhanced")


def _beside(person: Person, scanned: Scan, detail: Detail) -> Iterator[FileOut]:
    """Series that come with an examination; which ones is drawn for each person, or planted."""
    chance, rates = person.draws("beside").random(5), detail.beside
    is_free = person.fault == NO_FAULT

    def has(kind: str, place: int) -> bool:
        return person.fault == f"{kind}_beside" or (is_free and bool(chance[place] < getattr(rates, kind)))

    def numbered(number: int) -> Series:
        return series_of(person, number, tags=detail.tags)

    if has("scout", 0):
        yield _out(numbered(SCOUT_SERIES), scout_file(numbered(SCOUT_SERIES), scanned, pixels=scout(scanned)), "scout")
    if has("coronal", 1):
        series = replace(numbered(CORONAL_SERIES), is_contrast=person.is_contrast)
        yield from (_out(series, instance, "coronal") for instance in coronal_reformats(series, scanned))
    if has("dose_report", 2):
        series = numbered(REPORT_SERIES)
        yield _out(series, dose_report(series, dose_of(series, scanned)), "dose_report")
    if has("dose_sheet", 3) or person.fault == "dose_report_beside":
        series = numbered(habit_of(person).dose_number)
        yield _out(series, dose_sheet(series, dose_of(series, scanned)), "dose_sheet")
    if has("capture", 4):
        yield _out(numbered(CAPTURE_SERIES), screen_capture(numbered(CAPTURE_SERIES), scanned), "capture")


def _slices(series: Series, scanned: Scan) -> Iterator[FileOut]:
    """The slices of the index series, with those faults that lie in single files; the middle slice is the one hit."""
    fault, middle = series.person.fault, scanned.grid.shape[0] // 2
    for instance in ct_slices(series, scanned):
        made = _out(series, instance, "axial")
        if instance.number == middle:
            if fault == "missing_slice":
                continue
            if fault == "mixed_orientation":
                made = _out(series, turned(instance), "axial")
            if fault in {"truncated_pixels", "truncated_header"}:
                cut = made.content[:-LOST_BYTES] if fault == "truncated_pixels" else made.content[:HEADER_BYTES]
                made = replace(made, content=cut, refusal="truncated")
        if fault in {"duplicate_same_content", "duplicate_different_content"} and instance.number <= RESENT_SLICES:
            made = replace(made, copies=fault)
            again = other_content(instance).content if fault == "duplicate_different_content" else instance.content
            yield made
            yield replace(made, path=f"{RESENT[series.person.manner]}/{made.path}", content=again)
            continue
        yield made


def _out(series: Series, instance: Instance, kind: Kind) -> FileOut:
    return FileOut(file_of(series, instance), instance.content, kind, instance.sop_uid)


def _mask(series: Series, scanned: Scan) -> FileOut:
    layout = MASKS[series.person.manner]
    if layout == "seg":
        return _out(series, segmentation(series, scanned.labels, grid=scanned.grid, segments=CORES), "mask_seg")
    content = nifti(scanned.labels, scanned.grid, layout=layout)
    return FileOut(f"{folder_of(series)}/{MASK_NAME[series.person.manner]}", content, "mask_nifti", refusal="nifti")


def _written_id(person: Person) -> str:
    """The Patient ID as the images write it."""
    if person.fault == "patient_id_blanks":
        return f" {person.patient_id[:4]} {person.patient_id[4:]} "
    return person.patient_id.lower() if person.fault == "patient_id_case" else person.patient_id


def _png() -> bytes:
    """A gray picture of 8 by 8 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    lines = b"".join(b"\0" + bytes(range(8 * i, 8 * i + 8)) for i in range(8))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
