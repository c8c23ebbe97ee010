"""imagecodecs, where it is installed, gives the bits that pydicom's own plug-ins give; what it cannot read, they read."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from ospor_batch.imaging import codecs
from ospor_batch.imaging.decoding import frames_of
from ospor_batch.synthetic.pixel_codecs import encode, put_pixels

COMPRESSED = (JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)


def dataset(frame: np.ndarray, syntax: UID, *, bits: int) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.Rows, made.Columns = frame.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 8 * frame.itemsize, bits, bits - 1
    made.PixelRepresentation = int(frame.dtype.kind == "i")
    if syntax in COMPRESSED:
        put_pixels(made, encode(frame, syntax=syntax, bits_stored=bits), syntax=syntax)
    else:
        made.set_original_encoding(False, syntax.is_little_endian)
        made.add_new(
            "PixelData", "OW", frame.astype(frame.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
        )
    return made


def frame(kind: type, bits: int) -> np.ndarray:
    least, greatest = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if np.issubdtype(kind, np.signedinteger) else (0, 2**bits)
    smooth = np.linspace(least, greatest - 1, 45 * 38).reshape(45, 38)
    return np.clip(smooth + np.random.default_rng(bits).normal(0, 3, smooth.shape), least, greatest - 1).astype(kind)


@pytest.mark.parametrize(("kind", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16), (np.int16, 12), (np.int16, 16)])
@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda uid: uid.name.split(",")[0])
def test_the_bits_are_those_of_the_other_plug_ins(monkeypatch: pytest.MonkeyPatch, syntax: UID, kind: type, bits: int) -> None:
    pytest.importorskip("imagecodecs")
    if (syntax, kind) == (JPEGLosslessSV1, np.uint8):
        pytest.skip("the encoder of generated files writes 16 bits")
    made = dataset(frame(kind, bits), syntax, bits=bits)
    called = []
    decode = codecs.decode_frame
    monkeypatch.setitem(get_decoder(syntax)._available, codecs.NAME, lambda *a: called.append(1) or decode(*a))
    assert codecs.preferred(syntax) == codecs.NAME
    ours = frames_of(made)
    assert called
    theirs, _ = get_decoder(syntax).as_array(made, decoding_plugin="pylibjpeg")
    np.testing.assert_array_equal(ours[0], theirs)
    np.testing.assert_array_equal(ours[0], frame(kind, bits))


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda uid: uid.name.split(",")[0])
def test_what_one_plug_in_cannot_read_another_reads(monkeypatch: pytest.MonkeyPatch, syntax: UID) -> None:
    first = codecs.preferred(syntax)
    if not first:
        pytest.skip("one order only")

    def broken(*_: object) -> bytes:
        raise ValueError

    monkeypatch.setitem(get_decoder(syntax)._available, first, broken)
    np.testing.assert_array_equal(frames_of(dataset(frame(np.uint16, 12), syntax, bits=12))[0], frame(np.uint16, 12))


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda uid: uid.name)
def test_unused_bits_hold_nothing(syntax: UID, kind: type) -> None:
    clean = frame(kind, 12)
    soiled = clean.copy()
    soiled[3:9] ^= kind(0x5000)
    for stored in (clean, soiled):
        made = dataset(stored, syntax, bits=12)
        np.testing.assert_array_equal(frames_of(made)[0], clean)
        theirs, _ = get_decoder(syntax).as_array(made)
        np.testing.assert_array_equal(frames_of(made)[0], theirs)
