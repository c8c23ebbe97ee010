"""The same HU come out of every transfer syntax, in one thread and in several, and as other readers give them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGTransferSyntaxes,
    RLELossless,
)

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.decoding import frames_of, open_dataset, refusals
from ospor_batch.imaging.reader import read_volume
from ospor_batch.synthetic.pixel_codecs import encode, put_pixels
from tests.imaging.series import affine, write_enhanced, write_series

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
COMPRESSED = (JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless)


@pytest.fixture
def hu() -> np.ndarray:
    return np.random.default_rng(5).integers(-1000, 1500, (3, 33, 34)).astype(np.int16)


def as_syntax(paths: list[Path], syntax: UID) -> list[Path]:
    """Write the files of a plain series again in another syntax."""
    for path in paths:
        read, dataset = pydicom.dcmread(path), Dataset()
        stored = read.pixel_array
        dataset.update(read)
        dataset.file_meta = read.file_meta
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax in COMPRESSED:
            put_pixels(dataset, encode(stored, syntax=syntax, bits_stored=16), syntax=syntax)
        else:
            order = ">" if syntax == ExplicitVRBigEndian else "<"
            dataset.add_new("PixelData", "OW", stored.astype(stored.dtype.newbyteorder(order)).tobytes())
        dataset.save_as(path, enforce_file_format=True)
    return paths


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("syntax", [*NATIVE, *COMPRESSED], ids=lambda uid: uid.name.split(",")[0])
def test_every_syntax_gives_the_hu_that_were_written(tmp_path: Path, hu: np.ndarray, syntax: UID, is_signed: bool) -> None:
    intercept = 0.0 if is_signed else -1024.0
    paths = as_syntax(write_series(tmp_path, hu, affine(), is_signed=is_signed, intercept=intercept), syntax)
    assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID == syntax
    volume = read_volume(paths)
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_allclose(volume.affine, affine(), atol=1e-6)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_file_without_file_meta_is_read_in_the_encoding_it_has(tmp_path: Path, hu: np.ndarray, syntax: UID) -> None:
    paths = as_syntax(write_series(tmp_path, hu, affine()), syntax)
    for path in paths:
        content = path.read_bytes()
        meta_length = int.from_bytes(content[140:144], "little")
        path.write_bytes(content[144 + meta_length :])
    np.testing.assert_array_equal(read_volume(paths).hu, hu)


def test_one_series_may_mix_syntaxes(tmp_path: Path, hu: np.ndarray) -> None:
    paths = write_series(tmp_path, hu, affine())
    as_syntax(paths[:1], RLELossless)
    as_syntax(paths[1:2], JPEG2000Lossless)
    np.testing.assert_array_equal(read_volume(paths).hu, hu)


def test_every_frame_has_its_own_rescale(tmp_path: Path, hu: np.ndarray) -> None:
    path = write_enhanced(tmp_path / "e.dcm", hu, affine(), order=[2, 0, 1])
    dataset = pydicom.dcmread(path)
    del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    stored = dataset.pixel_array.astype(np.float64)
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        rescale = pydicom.Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = 1 / (number + 1), -1024
        group.PixelValueTransformationSequence = [rescale]
        stored[number] *= number + 1
    dataset.PixelData = stored.astype(np.uint16).tobytes()
    dataset.save_as(path)
    np.testing.assert_allclose(read_volume([path]).hu, hu, atol=1e-3)


@pytest.mark.parametrize(("slope", "intercept"), [(0.0, -1024.0), (None, -1024.0), (1.0, None)])
def test_a_rescale_that_is_none_gives_no_hu(
    tmp_path: Path, hu: np.ndarray, slope: float | None, intercept: float | None
) -> None:
    changes = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    with pytest.raises(ItemRefused, match="HU are not known"):
        read_volume(write_series(tmp_path, hu, affine(), changes=changes))


@pytest.mark.parametrize("n_threads", [2, 5])
def test_threads_change_nothing(tmp_path: Path, n_threads: int) -> None:
    hu = np.random.default_rng(2).integers(-1000, 1500, (24, 16, 16)).astype(np.int16)
    order = list(np.random.default_rng(3).permutation(24))
    paths = as_syntax(write_series(tmp_path, hu, affine(), order=order), RLELossless)
    alone, together = read_volume(paths), read_volume(paths, n_threads=n_threads)
    np.testing.assert_array_equal(alone.hu, together.hu)
    np.testing.assert_array_equal(alone.affine, together.affine)
    for place in (5, 17):
        paths[place].write_bytes(paths[place].read_bytes()[:-40])
    paths[20].unlink()
    said = []
    for n in (1, n_threads):
        with pytest.raises(ItemRefused) as refused:
            read_volume(paths, n_threads=n)
        said.append((refused.value.reason, refused.value.detail))
    assert said[0] == said[1]


def test_silence_in_threads_ends_with_the_last_of_them() -> None:
    """What quotes header values stays silent while any thread reads, and the filters are whole afterwards."""
    before = list(warnings.filters)
    inside, go_on = threading.Barrier(2), threading.Event()

    def reads() -> None:
        with refusals("decode_failed"):
            inside.wait()
            go_on.wait()
            warnings.warn("Secret^Name", stacklevel=1)

    thread = threading.Thread(target=reads)
    thread.start()
    inside.wait()
    with refusals("decode_failed"):
        warnings.warn("Secret^Name", stacklevel=1)
    go_on.set()
    thread.join()
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def real_files(shared: Path) -> Iterator[Path]:
    folder = shared / "data" / "real"
    return (path for path in sorted(folder.rglob("*")) if path.is_file()) if folder.is_dir() else iter(())


def compared_by_sitk(path: Path) -> tuple[np.ndarray, np.ndarray, float] | None:
    """HU of a CT image as both read it and how far they may differ; null when it is none or one of them cannot."""
    sitk = pytest.importorskip("SimpleITK")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        volume = read_volume([path])
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.float64)
        with refusals("decode_failed"):
            dataset = open_dataset(path)
    except (ItemRefused, RuntimeError):
        return None
    if dataset.get("SOPClassUID") != CTImageStorage:
        return None
    kept = np.ones(volume.hu.shape, bool) if volume.is_padding is None else ~volume.is_padding
    if volume.hu.min() < 0 <= theirs.min():
        theirs -= 65536 * (theirs >= 32768)  # they wrap what the header calls unsigned and the codestream signed
    # the inverse transform of lossy JPEG may round either way
    reach = float(dataset.RescaleSlope) if dataset.file_meta.TransferSyntaxUID in JPEGTransferSyntaxes[:2] else 0.0
    return theirs[kept], volume.hu[kept], reach + 0.01  # float32 against float64


def test_real_ct_equals_simpleitk(shared: Path) -> None:
    """Every real CT image that both can read: the same HU, whatever the syntax."""
    found = [pair for pair in map(compared_by_sitk, real_files(shared)) if pair is not None]
    if not found:
        pytest.skip("no real CT images")
    for theirs, ours, reach in found:
        assert theirs.shape == ours.shape
        assert np.abs(theirs - ours).max() < reach


def test_a_codestream_knows_its_sign_better_than_the_header(shared: Path) -> None:
    """Real reformats whose header says unsigned: air is near -1000 HU again, not near 64000."""
    n_found = 0
    for path in real_files(shared):
        try:
            with refusals("decode_failed"):
                dataset = open_dataset(path)
                is_lying = dataset.PixelRepresentation == 0 and frames_of(dataset).min() < 0
        except ItemRefused:
            continue
        if is_lying and dataset.get("Modality") == "CT":
            n_found += 1
            hu = read_volume([path]).hu
            assert -4096 <= hu.min() < -900
            assert hu.max() < 4096
    if not n_found:
        pytest.skip("no such file")


def test_real_images_decode_alike_with_every_plug_in(shared: Path) -> None:
    """Every small compressed gray image: the two plug-ins that read all syntaxes give the values that we give."""
    n_compared, syntaxes = 0, set()
    for path in real_files(shared):
        try:
            with refusals("decode_failed"):
                dataset = open_dataset(path)
                syntax = UID(dataset.file_meta.TransferSyntaxUID)
                if not syntax.is_encapsulated or dataset.Rows > 600:
                    continue
                ours = frames_of(dataset)
        except ItemRefused:
            continue
        syntaxes.add(syntax)
        reach = 0 if "Lossless" in syntax.name else 4
        for plugin in {"gdcm", "pylibjpeg"} & set(get_decoder(syntax).available_plugins):
            try:
                with refusals("decode_failed"):
                    theirs, _ = get_decoder(syntax).as_array(dataset, decoding_plugin=plugin)
            except ItemRefused:
                continue
            differs = np.abs(theirs.reshape(ours.shape).astype(int) - ours.astype(int)) % 65536
            assert np.minimum(differs, 65536 - differs).max() <= reach
            n_compared += 1
    if not n_compared:
        pytest.skip("no compressed real images")
    assert len(syntaxes) > 3
