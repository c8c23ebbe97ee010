"""What decoding JPEG 2000 at a part of its resolution costs: python benchmarks/coarse.py WORKSPACE ARCHIVE [--json FILE]

Every model of cxr_osteoporosis in a workspace answers radiographs of an archive, written anew as JPEG 2000, decoded whole and
with least_decoded_pixels at one, one and a half and two times the side of what the network sees: the largest difference of a
score, and how many decisions at the model's locked threshold (the median score where it has none) stay. No times: generated
radiographs are small; benchmarks/inference.py has those of 2,000 x 2,000.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from agreement import compared, in_words

from ospor_batch.errors import ItemRefused
from ospor_batch.imaging.decoding import frames_of
from ospor_batch.imaging.radiograph import read_radiograph
from ospor_batch.models.bundle import open_bundle, read_spec
from ospor_batch.models.cxr_osteoporosis import RECIPE
from ospor_batch.models.spec import Pixels, Prediction
from ospor_batch.models.trainable import Example, Preparing
from ospor_batch.synthetic.pixel_codecs import encode, put_pixels

JPEG_2000 = "1.2.840.10008.1.2.4.90"
SHARES = (1.0, 1.5, 2.0)


def as_jpeg_2000(archive: Path, folder: Path, *, most: int) -> list[Path]:
    """Some radiographs of an archive, lossless."""
    found: list[Path] = []
    for path in sorted(archive.rglob("*")):
        if len(found) == most:
            break
        if not path.is_file():
            continue
        dataset = pydicom.dcmread(path, force=True)
        if dataset.get("Modality") not in {"CR", "DX"} or "PixelData" not in dataset or dataset.get("ViewPosition") == "LL":
            continue
        stored = frames_of(dataset)[0]
        dataset.file_meta.TransferSyntaxUID = JPEG_2000
        put_pixels(dataset, encode(stored, syntax=JPEG_2000, bits_stored=dataset.BitsStored), syntax=JPEG_2000)
        found.append(folder / f"{len(found):05d}.dcm")
        dataset.save_as(found[-1], enforce_file_format=True)
    return found


def example(path: Path, parameters: dict[str, Any], least: int) -> tuple[Example | None, int]:
    """What the network sees of a file, null for a refused one; rows that were decoded."""
    try:
        radiograph = read_radiograph([path], least_pixels=least)
        return RECIPE.prepare(Pixels(radiograph=radiograph), Preparing(parameters, None)), len(radiograph.image)  # type: ignore[arg-type]
    except ItemRefused:
        return None, 0


def measure(folder: Path, files: list[Path]) -> list[dict[str, Any]]:
    spec = read_spec(folder)
    if spec["recipe"] != RECIPE.name:
        return []
    parameters = {**RECIPE.defaults, **spec["parameters"]}
    answers = RECIPE.learner.open(open_bundle(folder).state, parameters, targets=RECIPE.targets(parameters), device="cpu")
    side, locked = int(parameters["image_pixels"]), spec["threshold"]["score_cut"]
    rows = []
    whole = [example(path, parameters, 0) for path in files]
    for least in (int(share * side) for share in SHARES):
        coarse = [example(path, parameters, least) for path in files]
        both = [(a[0], b[0]) for a, b in zip(whole, coarse, strict=True) if a[0] is not None and b[0] is not None]
        one, other = (np.array([_score(answers([each])[0]) for each in column]) for column in zip(*both, strict=True))
        rows.append({
            "network_sees": side, "least_decoded_pixels": least, "rows_whole": max(n for _, n in whole),
            "rows_decoded": max(n for _, n in coarse),
            "refused_by_one_alone": sum((a[0] is None) != (b[0] is None) for a, b in zip(whole, coarse, strict=True)),
            **compared((one, other), (one, other), locked=locked),
        })  # fmt: skip
    return rows


def _score(answer: object) -> float:
    assert isinstance(answer, Prediction)
    return answer.score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--most", type=int, default=200, help="Radiographs.")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        files = as_jpeg_2000(given.archive, Path(made), most=given.most)
        rows = [
            row
            for folder in sorted((given.workspace / "models").iterdir())
            if (folder / "spec.json").is_file()
            for row in measure(folder, files)
        ]
    for row in rows:
        print(
            f"network sees {row['network_sees']:3}, at least {row['least_decoded_pixels']:3}: {row['rows_decoded']:4} of "
            f"{row['rows_whole']:4} rows decoded, {in_words(row)}; refused by one alone {row['refused_by_one_alone']}",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
