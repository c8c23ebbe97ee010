"""The measured numbers of docs/scale.md: python benchmarks/scale_figures.py [tables] [codecs] [decode] [networks] [catalog]

tables: bytes a row of predictions and of the locator, on disk and in memory, and what a part costs. codecs: what lossless
JPEG 2000 leaves of a generated radiograph, and of real CT slices (--real FOLDER). decode: CPU from file to array. networks:
arithmetic of one pass of every recipe's network. catalog: bytes a row of the Delta tables of a crawled workspace
(--workspace FOLDER).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

N_ROWS = 100_000
SAID: dict[str, float] = {}


def say(what: str, value: float, unit: str) -> None:
    SAID[f"{what} ({unit})"] = value
    print(f"{what}: {value:,.3g} {unit}" if value < 1e4 else f"{what}: {value:,.0f} {unit}", flush=True)


def written(rows: pl.DataFrame, name: str, folder: Path) -> int:
    from ospor_batch.store import write_part

    write_part(rows, name, target=folder / f"{name}.parquet")
    return (folder / f"{name}.parquet").stat().st_size


def tables() -> None:
    from ospor_batch.contracts.table import conform, whole
    from ospor_batch.inference.parts import name_of, write_parts
    from ospor_batch.models.registry import spec_of

    random = np.random.default_rng(1)
    digests = [random.bytes(16).hex() for _ in range(2 * N_ROWS)]
    spec = spec_of("mean_hu", parameters={}, pattern="*.nii*", labels={"L1": 20})
    rows = [
        {
            "item_digest": digests[i], "series_digest": digests[N_ROWS + i], "predictor": "cxr_osteoporosis",
            "model_digest": "0" * 16, "parameter_digest": "1" * 16, "score": value, "predicted_value": value,
            "predicted_value_unit": "probability", "n_vertebrae": 0, "levels": "", "flags": "", "device": "cuda",
        }
        for i, value in enumerate(random.random(N_ROWS).tolist())
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        predictions = conform(pl.DataFrame(rows), "prediction")
        say("prediction, merged part of 100,000", written(predictions, "prediction", Path(folder)) / N_ROWS, "B a row")
        say("prediction, in memory", predictions.estimated_size() / N_ROWS, "B a row")
        began, n = time.perf_counter(), 20
        for i in range(n):
            some = rows[64 * i : 64 * i + 64]
            write_parts({"prediction": some}, name=name_of(row["item_digest"] for row in some), store=Path(folder), spec=spec)
        say("part of a shard of 64, written and synchronised", 1e3 * (time.perf_counter() - began) / n, "ms")
        sizes = [file.stat().st_size for file in Path(folder).glob("prediction-*.parquet")]
        say("part of a shard of 64", sum(sizes) / len(sizes) / 1e3, "kB")
        located = [
            {
                "center": "north", "series_key": digests[i // 10], "file_key": digests[i], "kind": "image",
                "slice_order": i % 10,
                "archive": "archives/north", "path": f"2022/{i // 3000:04d}/1.2.840.113619.2.{i // 10:010d}/IM{i % 10:06d}.dcm",
                "size_bytes": 526_000 + i % 7, "transfer_syntax_uid": "1.2.840.10008.1.2.1", "content_digest": None,
            }
            for i in range(N_ROWS)
        ]  # fmt: skip
        locator = whole(conform(pl.DataFrame(located, infer_schema_length=None), "locator"), "locator")
        say("locator, on disk, ten slices a series", written(locator, "locator", Path(folder)) / N_ROWS, "B a row")
        say("locator, in memory", locator.estimated_size() / N_ROWS, "B a row")


def codecs(real: Path | None) -> None:
    import pydicom

    from ospor_batch.synthetic.pixel_codecs import encode
    from ospor_batch.synthetic.population import Rates, people
    from ospor_batch.synthetic.radiograph import radiograph
    from ospor_batch.synthetic.vendor import JPEG_2000

    (person,) = people("north", range(100, 101), seed=3, night=1, rates=Rates(0, 0, 0, 0))
    image = radiograph(person, matrix=2000)
    say("generated radiograph, JPEG 2000 of its bytes", len(encode(image, syntax=JPEG_2000, bits_stored=12)) / image.nbytes, "")
    if real is None:
        return
    shares = []
    for path in sorted(real.rglob("*.dcm")):
        try:
            dataset = pydicom.dcmread(path)
            if dataset.Modality != "CT" or dataset.Rows != 512:
                continue
            frame = dataset.pixel_array
        except (AttributeError, ValueError, RuntimeError, NotImplementedError, pydicom.errors.InvalidDicomError):
            continue
        if frame.ndim == 2 and frame.dtype.itemsize == 2 and len(shares) < 60:
            shares.append(len(encode(frame, syntax=JPEG_2000, bits_stored=16)) / frame.nbytes)
    if shares:
        say(f"{len(shares)} real CT slices, JPEG 2000 of their bytes, mean", float(np.mean(shares)), "")
        say("the same, largest", max(shares), "")


def put(path: Path, frame: Any, *, syntax: str, **more: Any) -> Path:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import generate_uid

    from ospor_batch.synthetic.pixel_codecs import encode, put_pixels

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", generate_uid()
    dataset.Rows, dataset.Columns = frame.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    for name, value in more.items():
        setattr(dataset, name, value)
    put_pixels(dataset, encode(frame, syntax=syntax, bits_stored=12), syntax=syntax)
    dataset.save_as(path, enforce_file_format=True)
    return path


def decode() -> None:
    """Seconds of CPU of one core from file to what a recipe would cut; the files are in the page cache."""
    from ospor_batch.imaging.radiograph import read_radiograph
    from ospor_batch.imaging.reader import read_volume
    from ospor_batch.models import cxr_osteoporosis
    from ospor_batch.models.spec import Pixels
    from ospor_batch.models.trainable import Preparing
    from ospor_batch.synthetic.population import Rates, people
    from ospor_batch.synthetic.radiograph import radiograph
    from ospor_batch.synthetic.vendor import JPEG_2000

    def cpu(call: Any, n: int) -> float:
        call()
        before = time.process_time()
        for _ in range(n):
            call()
        return (time.process_time() - before) / n

    plain, preparing = "1.2.840.10008.1.2.1", Preparing({**cxr_osteoporosis.DEFAULTS, "refuse_lateral": False}, None)  # type: ignore[arg-type]
    (person,) = people("north", range(100, 101), seed=3, night=1, rates=Rates(0, 0, 0, 0))
    image = radiograph(person, matrix=2000)
    with tempfile.TemporaryDirectory() as made:
        for name, syntax in (("not compressed", plain), ("JPEG 2000", JPEG_2000)):
            file = put(Path(made) / f"{syntax}.dcm", image, syntax=syntax, Modality="DX", ImagerPixelSpacing=[0.2, 0.2])
            say(f"radiograph, {name}, read and normalised", cpu(lambda file=file: read_radiograph([file]), 3), "s of CPU")  # type: ignore[misc]
        found = read_radiograph([file])
        say(
            "radiograph, prepared for its network",
            cpu(lambda: cxr_osteoporosis.prepare(Pixels(radiograph=found), preparing), 3),
            "s of CPU",
        )
        noise = np.random.default_rng(2)
        frame = np.clip(noise.normal(1100, 40, (512, 512)), 0, 4095).astype(np.uint16)
        files = [
            put(
                Path(made) / f"{k:03d}.dcm", frame, syntax=plain, Modality="CT", ImagePositionPatient=[-180, -180, float(k)],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[0.7, 0.7], RescaleSlope=1, RescaleIntercept=-1024,
            )
            for k in range(300)
        ]  # fmt: skip
        say("CT of 300 slices, not compressed, read to HU", cpu(lambda: read_volume(files), 1), "s of CPU")


def networks() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ospor_batch.models.registry import PREDICTORS
    from ospor_batch.models.trainable import NetworkLearner

    for name, kind in PREDICTORS.items():
        if kind.trains is None or not isinstance(kind.trains.learner, NetworkLearner):
            continue
        parameters: dict[str, Any] = dict(kind.trains.defaults)
        with torch.device("meta"):  # shapes alone: nothing is computed
            network = kind.trains.learner.network(parameters).eval()
            first = next(layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Conv3d))
            side = parameters.get("image_pixels", parameters.get("crop_pixels"))
            image = torch.empty(1, first.in_channels, *[side] * len(first.kernel_size))
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(image)
        say(f"{name}, {parameters['network']} at {side}, one image", counter.get_total_flops() / 1e9, "GFLOP")


def catalog(workspace: Path) -> None:
    from ospor_batch.store import Store

    store = Store(workspace)
    centers = store.sweeps()["center"].unique().to_list()
    for folder in sorted(p.parent for p in workspace.rglob("_delta_log")):
        n_rows = sum(store.current(folder.name, center=center).height for center in centers if center != "*")
        parts = list(folder.rglob("*.parquet"))
        if n_rows:
            size = sum(part.stat().st_size for part in parts)
            print(f"{folder.name}: {n_rows} rows, {len(parts)} files, {size / 1e6:.1f} MB")
            say(f"{folder.name}, Delta table", size / n_rows, "B a row")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["tables", "codecs", "decode", "networks"])
    parser.add_argument("--real", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    for what in given.what:
        if what == "catalog":
            catalog(given.workspace)
        elif what == "codecs":
            codecs(given.real)
        else:
            {"tables": tables, "decode": decode, "networks": networks}[what]()
    if given.json:
        given.json.write_text(json.dumps(SAID, indent=1))


if __name__ == "__main__":
    main()
