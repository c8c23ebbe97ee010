"""A plain slice read without pydicom is what pydicom reads, or is left to pydicom."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging import reader
from ospor_batch.imaging.decoding import open_dataset, open_slice
from ospor_batch.imaging.plain_slice import PlainSlice
from tests.imaging.series import affine, write_enhanced, write_series
from tests.imaging.test_syntaxes import as_syntax

HU = np.random.default_rng(3).integers(-1000, 1500, (1, 6, 7)).astype(np.int16)
USUAL = {"KVP": 120, "PatientSex": "F", "PatientSize": "1.65", "SpacingBetweenSlices": 3, "PatientName": "Zoë^Secret"}


def slice_file(folder: Path, *, syntax: str = ExplicitVRLittleEndian, signed: bool = False, **changes: object) -> Path:
    """One slice as scanners write it, with a sequence of undefined length and elements of a maker's own."""
    (path,) = write_series(
        folder, HU, affine(turn=10.0), is_signed=signed, intercept=0 if signed else -1024, changes={**USUAL, **changes}
    )
    dataset, inner = pydicom.dcmread(path), Dataset()
    inner.ReferencedSOPInstanceUID, inner.CodeMeaning = "1.2.3", "of a sequence"
    inner.PurposeOfReferenceCodeSequence = [Dataset()]
    dataset.ReferencedImageSequence = [inner, Dataset()]
    dataset["ReferencedImageSequence"].is_undefined_length = True
    dataset.private_block(0x0029, "OF A MAKER", create=True).add_new(0x01, "LO", "anything")
    dataset.DataSetTrailingPadding = b"\0\0\0\0"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian)
    return path


def read(path: Path, *, by_pydicom: bool) -> object:
    """What the reader makes of a file: planes and voxels, or the refusal."""
    try:
        with mock.patch.object(reader, "open_slice", open_dataset if by_pydicom else open_slice):
            found = reader._slices(path, 0, reader._Room(1))
    except ItemRefused as refused:
        return refused.reason, refused.detail, refused.is_transient
    return [
        (*(np.asarray(value).tolist() for value in vars(piece.plane).values()), piece.image.tolist(),
         None if piece.is_padding is None else piece.is_padding.tolist())
        for piece in found
    ]  # fmt: skip


def is_plain(path: Path) -> bool:
    return isinstance(open_slice(path), PlainSlice)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"PatientSize": None, "PatientSex": None, "KVP": None, "SpacingBetweenSlices": None},
        {"PixelPaddingValue": 0},
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 500},
        {"signed": True, "PixelPaddingValue": -1000},
        {"signed": True, "BitsStored": 12, "HighBit": 11},
        {"RescaleSlope": "0.5", "RescaleIntercept": "-1.5e2"},
    ],
    ids=lambda changes: ",".join(changes) or "usual",
)
def test_a_plain_slice_reads_as_pydicom_reads_it(tmp_path: Path, syntax: str, changes: dict[str, object]) -> None:
    path = slice_file(tmp_path, syntax=syntax, **changes)  # type: ignore[arg-type]
    assert is_plain(path)
    assert isinstance(read(path, by_pydicom=False), list)
    assert read(path, by_pydicom=False) == read(path, by_pydicom=True)


def test_what_is_not_plain_is_left_to_pydicom(tmp_path: Path) -> None:
    odd = [
        *as_syntax(write_series(tmp_path / "big", HU, affine()), ExplicitVRBigEndian),
        slice_file(tmp_path / "several", KVP=["100", "120"]),
        slice_file(tmp_path / "frames", NumberOfFrames=1),
        slice_file(tmp_path / "colours", PhotometricInterpretation="PALETTE COLOR"),
        *write_series(tmp_path / "rle", HU, affine(), compress=RLELossless),
        write_enhanced(tmp_path / "enhanced.dcm", HU, affine(), order=[0]),
    ]
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(odd[0].read_bytes()[132:])
    for path in (*odd, bare):
        assert not is_plain(path)
        assert read(path, by_pydicom=False) == read(path, by_pydicom=True)


@pytest.fixture(scope="module", params=[ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def content(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = slice_file(tmp_path_factory.mktemp("slice"), syntax=request.param, PixelPaddingValue=0)
    return path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=3),
    st.one_of(st.none(), st.floats(0, 1)),
    st.one_of(st.none(), st.tuples(st.floats(0, 1), st.integers(1, 12))),
)
def test_a_damaged_file_reads_as_pydicom_reads_it(
    content: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    bytes_set: list[tuple[float, int]],
    cut: float | None,
    taken: tuple[float, int] | None,
) -> None:
    damaged = bytearray(content)
    for share, value in bytes_set:
        damaged[128 + int(share * (len(content) - 129))] = value
    if taken is not None:
        at = 128 + int(taken[0] * (len(content) - 129))
        del damaged[at : at + taken[1]]
    if cut is not None:
        del damaged[128 + int(cut * (len(damaged) - 128)) :]
    path = tmp_path_factory.mktemp("damaged") / "0.dcm"
    path.write_bytes(bytes(damaged))
    assert str(read(path, by_pydicom=False)) == str(read(path, by_pydicom=True))  # nan equals itself in words


def test_real_slices_read_as_pydicom_reads_them(shared: Path) -> None:
    folder = shared / "data" / "real"
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not files:
        pytest.skip(f"no real files in {folder}")
    for path in files:
        try:
            is_one = is_plain(path)
        except Exception:  # noqa: BLE001 -- pydicom's verdict on what is no image, which reader.py turns into a refusal
            continue
        if is_one:
            assert read(path, by_pydicom=False) == read(path, by_pydicom=True)
