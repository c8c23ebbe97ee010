"""Every file of one generated person, with the fault that the person carries."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from ospor_batch.synthetic.ct import Sampling, Scan, scan, scout
from ospor_batch.synthetic.folders import MASK_NAME, MASKS, RESENT, file_of, folder_of
from ospor_batch.synthetic.instances import Instance, Series, ct_slices, other_content, radiograph_file, scout_file
from ospor_batch.synthetic.masks import nifti, segmentation
from ospor_batch.synthetic.population import Person
from ospor_batch.synthetic.radiograph import radiograph
from ospor_batch.synthetic.vendor import HABITS

SCOUT_SERIES, PLAIN_SERIES, CONTRAST_SERIES = 1, 2, 3
HEADER_BYTES = 500  # what is left of a file that was cut off in its header
LOST_BYTES = 3000  # what is lost of one that was cut off in its pixels
RESENT_SLICES = 3


@dataclass(frozen=True)
class FileOut:
    """One file: its path below the archive root, with forward slashes, and its content."""

    path: str
    content: bytes


def patient_files(person: Person, *, sampling: Sampling, radiograph_matrix: int) -> Iterator[FileOut]:
    """Every file of a person, in a fixed order."""
    if person.is_ct:
        yield from _ct_files(person, sampling)
    if person.is_radiograph:
        day = person.image_date if not person.is_ct else person.image_date - timedelta(days=3)
        series = replace(_series(person, 1), study_word="radiograph", image_date=day)
        instance = radiograph_file(series, radiograph(person, matrix=radiograph_matrix))
        yield FileOut(file_of(series, instance), instance.content)
    if person.fault == "non_dicom_files":
        yield FileOut("reading list.txt", b"Cases to show on Monday\r\n")
        yield FileOut("screenshot.dcm", _png())
        yield FileOut("transfer.tmp", b"")


def _ct_files(person: Person, sampling: Sampling) -> Iterator[FileOut]:
    plain = replace(_series(person, PLAIN_SERIES), is_contrast=person.is_contrast)
    scanned = _scan(person, sampling, is_contrast=person.is_contrast)
    if person.fault == "scout_beside":
        series = _series(person, SCOUT_SERIES)
        instance = scout_file(series, scanned, scout(scanned))
        yield FileOut(file_of(series, instance), instance.content)
    yield from _slices(plain, scanned)
    if person.fault != "missing_mask":
        yield _mask(plain, scanned)
    if person.fault == "contrast_beside":
        enhanced = replace(plain, number=CONTRAST_SERIES, is_contrast=True)
        for instance in ct_slices(enhanced, _scan(person, sampling, is_contrast=True)):
            yield FileOut(file_of(enhanced, instance), instance.content)


def _slices(series: Series, scanned: Scan) -> Iterator[FileOut]:
    """The slices of the index series, with those faults that lie in single files; the middle slice is the one hit."""
    fault, middle = series.person.fault, scanned.grid.shape[0] // 2
    for instance in ct_slices(series, scanned):
        path, content = file_of(series, instance), instance.content
        if instance.number == middle:
            if fault == "missing_slice":
                continue
            if fault == "truncated_pixels":
                content = content[:-LOST_BYTES]
            if fault == "truncated_header":
                content = content[:HEADER_BYTES]
        yield FileOut(path, content)
        if fault.startswith("duplicate_") and fault != "duplicate_exam" and instance.number <= RESENT_SLICES:
            yield _sent_again(series, instance, is_changed=fault == "duplicate_different_content")


def _sent_again(series: Series, instance: Instance, *, is_changed: bool) -> FileOut:
    again = other_content(instance) if is_changed else instance
    return FileOut(f"{RESENT[series.person.center]}/{file_of(series, instance)}", again.content)


def _mask(series: Series, scanned: Scan) -> FileOut:
    layout = MASKS[series.person.center]
    if layout == "seg":
        made = segmentation(series, scanned)
        return FileOut(file_of(series, made), made.content)
    return FileOut(f"{folder_of(series)}/{MASK_NAME[series.person.center]}", nifti(scanned, layout=layout))


def _scan(person: Person, sampling: Sampling, *, is_contrast: bool) -> Scan:
    habit = HABITS[person.vendor]
    return scan(
        person, sampling=sampling, spacing_mm=habit.spacing_mm, thickness_mm=habit.thickness_mm, is_contrast=is_contrast
    )


def _series(person: Person, number: int) -> Series:
    return Series(
        person, "ct", number, person.image_date, _written_id(person),
        is_age_known=person.fault != "age_unknown", is_contrast_tag_empty=person.fault == "contrast_tag_empty",
    )  # fmt: skip


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
