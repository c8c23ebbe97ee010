"""Train the segmentation network on generated volumes, and on real ones that come with masks, to a model folder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.masks import read_nifti
from ospor_batch.imaging.reader import read_volume
from ospor_batch.models.segmentation_classes import FILE_VALUES
from ospor_batch.models.spec import Parameter
from ospor_batch.stages.model_folder import versions
from ospor_batch.synthetic.arrays import best_device

if TYPE_CHECKING:
    from ospor_batch.models.segmentation_training import Labelled

WANTED = tuple(FILE_VALUES.values())


@dataclass(frozen=True)
class Asked:
    """What a segmentation is trained on. people: generated ones, one volume each. labelled: CSV of real volumes with masks."""

    people: int = 60
    seed: int = 1
    labelled: Path | None = None
    parameters: Mapping[str, Parameter] | None = None


def train_segmentation(out: Path, asked: Asked, *, progress: Callable[[int, int], None] | None = None) -> str:
    """Train and write the model folder; its digest. progress: told (step, steps).

    A training that was killed goes on from its checkpoint beside the folder when it is asked for once more.

    StudyError: the folder stands already, the CSV or a file that it names cannot be used, too few volumes.
    """
    from ospor_batch.models.segmentation_folder import write_segmentation
    from ospor_batch.models.segmentation_training import TRAINING, train, volumes_digest
    from ospor_batch.stages.segmentation_volumes import generated

    if out.exists():
        raise StudyError(f"{out}: stands already; name a new folder, nothing was written")
    parameters = {**TRAINING, **(asked.parameters or {})}
    spacing, steps = float(str(parameters["spacing_mm"])), int(str(parameters["steps"]))
    volumes = list(generated(asked.people, seed=asked.seed, spacing_mm=spacing))
    real = [] if asked.labelled is None else list(_labelled(asked.labelled, spacing_mm=spacing))
    told: list[float] = []

    def say(step: int, loss: float) -> None:
        told.append(loss)
        if progress is not None:
            progress(step, steps)

    unfinished = out.with_name(f".{out.name}.training.safetensors")
    network = train(
        [*volumes, *real], parameters=parameters, seed=asked.seed, device=best_device(), progress=say, checkpoint=unfinished
    )
    last = told[-100:]
    training: dict[str, Any] = {
        "n_generated": len(volumes), "n_labelled": len(real), "volumes_digest": volumes_digest([*volumes, *real]),
        "seed": asked.seed, "loss": round(sum(last) / len(last), 4) if last else None, "versions": versions(),
    }  # fmt: skip
    digest = write_segmentation(out, network, parameters=parameters, training=training, card=_card(training))
    unfinished.unlink(missing_ok=True)
    return digest


def _labelled(listing: Path, *, spacing_mm: float) -> Iterator[Labelled]:
    """Real volumes: columns image (a folder of one DICOM series) and mask (NIfTI, numbers of VerSe, tissues from 100)."""
    from ospor_batch.models.segmentation_training import on_grid

    for number, row in enumerate(_rows(listing), start=2):
        image, mask = (listing.parent / row[name] for name in ("image", "mask"))
        try:
            grid = read_nifti(mask, labels=WANTED)
            volume = read_volume(sorted(path for path in image.iterdir() if path.is_file()))
        except (ItemRefused, OSError) as refusal:
            why = refusal.reason if isinstance(refusal, ItemRefused) else type(refusal).__name__
            raise StudyError(f"{listing}, row {number}: {why}: image and mask must be a folder of DICOM and a NIfTI") from None
        if grid is None:
            raise StudyError(f"{listing}, row {number}: the mask holds none of the numbers {', '.join(map(str, WANTED))}")
        yield on_grid(volume, grid, spacing_mm=spacing_mm)


def _rows(listing: Path) -> list[dict[str, str]]:
    try:
        with listing.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"image", "mask"} <= set(reader.fieldnames or ()):
                raise StudyError(f"{listing}, row 1: columns {reader.fieldnames}, expected image and mask")
            return list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{listing}: cannot be read ({type(error).__name__})") from None


def _card(training: Mapping[str, Any]) -> str:
    return f"""\
# Segmentation of vertebral bodies, muscle and fat in CT

A U-Net on an isotropic grid, trained by label-to-image synthesis on {training["n_generated"]} generated volumes and on
{training["n_labelled"]} real ones with masks (seed {training["seed"]}).
It names the bodies of T1 to S1, muscle, subcutaneous and visceral fat.

Generated bodies prove the chain and not clinical worth: measure it on masked CT of your own scanners before use
(`benchmarks/segmentation.py --real FOLDER --model FOLDER`). Not for diagnosis.
"""
