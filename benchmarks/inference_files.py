"""Files for benchmarks/inference.py: generated radiographs and CT series, and shard files that name them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom

from ospor_batch.synthetic.pixel_codecs import encode, put_pixels

SIDE = 2000  # rows and columns of a radiograph
PLAIN, JPEG_2000 = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"
CR, CT = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.2"


def write_image(target: Path, frame: np.ndarray, *, syntax: str, sop_class: str, more: dict[str, Any]) -> None:
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[str(target)])
    ds.Rows, ds.Columns = frame.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    for name, value in more.items():
        setattr(ds, name, value)
    put_pixels(ds, encode(frame, syntax=syntax, bits_stored=12), syntax=syntax)
    target.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(target, enforce_file_format=True)


def chest(random: np.random.Generator) -> np.ndarray:
    """A smooth body with lungs, ribs and detector noise of 12 bits: what a codec meets in a radiograph."""
    y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    body = 2600 - 1500 * (np.exp(-(((x - 0.3) / 0.14) ** 2 + ((y - 0.45) / 0.3) ** 2)) + np.exp(
        -(((x - 0.7) / 0.14) ** 2 + ((y - 0.45) / 0.3) ** 2)))  # fmt: skip
    ribs = 120 * np.sin(60 * y + 6 * np.abs(x - 0.5))
    return np.clip(body + ribs + random.normal(0, 12, body.shape), 0, 4095).astype(np.uint16)


def write_radiographs(folder: Path, *, n: int, syntax: str) -> list[list[Path]]:
    random = np.random.default_rng(20220101)
    n_frames = min(n, 4)  # patterns; enough for a codec
    more = {"Modality": "DX", "PixelSpacing": [0.15, 0.15], "ImagerPixelSpacing": [0.15, 0.15], "ViewPosition": "PA"}
    for i in range(n_frames):
        write_image(folder / f"{i:04d}" / "0.dcm", chest(random), syntax=syntax, sop_class=CR, more=more)
    for i in range(n_frames, n):
        shutil.copytree(folder / f"{i % n_frames:04d}", folder / f"{i:04d}")
    return [[folder / f"{i:04d}" / "0.dcm"] for i in range(n)]


def write_volumes(folder: Path, *, n: int, n_slices: int) -> list[list[Path]]:
    random = np.random.default_rng(20220102)
    frame = np.clip(random.normal(1100, 40, (512, 512)), 0, 4095).astype(np.uint16)
    for k in range(n_slices):
        more = {
            "Modality": "CT", "InstanceNumber": k + 1, "ImagePositionPatient": [-180, -180, float(k)],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [0.7, 0.7], "SliceThickness": 1.0, "RescaleSlope": 1, "RescaleIntercept": -1024,
        }  # fmt: skip
        write_image(folder / "0000" / f"{k:04d}.dcm", frame, syntax=PLAIN, sop_class=CT, more=more)
    for i in range(1, n):
        shutil.copytree(folder / "0000", folder / f"{i:04d}")
    return [sorted((folder / f"{i:04d}").iterdir()) for i in range(n)]


def write_shards(folder: Path, series: list[list[Path]], n_shards: int) -> list[str]:
    names = []
    for number in range(n_shards):
        rows = [
            {
                "item_digest": f"{place:032x}", "series_digest": f"{place:032x}", "center": "one", "kind": "image",
                "slice_order": order, "file_key": f"{place:016x}{order:016x}", "root": str(path.parent.parent),
                "path": f"{path.parent.name}/{path.name}", "cache": str(folder / "cache"),
                "transfer_syntax_uid": PLAIN if len(series[place]) > 1 else None,  # that of one file is not looked at
            }
            for place in range(number, len(series), n_shards)
            for order, path in enumerate(series[place])
        ]  # fmt: skip
        if rows:
            names.append(f"shard{number}")
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{names[-1]}.parquet")
    return names
