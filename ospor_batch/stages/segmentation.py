"""Train the segmentation network on generated volumes, and on real ones that come with masks, to a model folder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.imaging.masks import read_nifti
from ospor_batch.imaging.reader import read_volume
from ospor_batch.models.segmentation_classes import FILE_VALUES, structures_of
from ospor_batch.models.spec import Parameter
from ospor_batch.stages.model_folder import versions
from ospor_batch.synthetic.ct import PROTOCOLS, ProtocolName, Sampling, Scan, scan
from ospor_batch.synthetic.population import CENTERS, Person, Rates, people
from ospor_batch.synthetic.truth_masks import labels_of

if TYPE_CHECKING:
    from ospor_batch.models.segmentation_training import Labelled

# What is covered, in turn: abdomens show most of what tells the levels apart; declared
PROTOCOLS_IN_TURN: tuple[ProtocolName, ...] = ("abdomen", "abdomen", "spine", "chest", "abdomen", "lumbar")
FIELD_MM = 400.0
# more contrast, fractures and scoliosis than people have, so that a network has seen enough of each; declared
TRAINING_RATES = Rates(0.3, 0.3, 0.0, 0.0, fracture=2.0, scoliosis=0.3, transitional=0.0)
WANTED = tuple(FILE_VALUES.values())


@dataclass(frozen=True)
class Asked:
    """What a segmentation is trained on. people: generated ones, one volume each. labelled: CSV of real volumes with masks."""

    people: int = 160
    seed: int = 1
    labelled: Path | None = None
    parameters: Mapping[str, Parameter] | None = None


def train_segmentation(out: Path, asked: Asked, *, progress: Callable[[int, int], None] | None = None) -> str:
    """Train and write the model folder; its digest. progress: told (step, steps).

    StudyError: the folder stands already, the CSV or a file that it names cannot be used, too few volumes.
    """
    from ospor_batch.models.segmentation_folder import write_segmentation
    from ospor_batch.models.segmentation_training import TRAINING, train

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

    network = train([*volumes, *real], parameters=parameters, seed=asked.seed, progress=say)
    last = told[-100:]
    training: dict[str, Any] = {
        "n_generated": len(volumes), "n_labelled": len(real), "seed": asked.seed, "loss": round(sum(last) / len(last), 4),
        "versions": versions(),
    }  # fmt: skip
    return write_segmentation(out, network, parameters=parameters, training=training, card=_card(training))


def generated(n: int, *, seed: int, spacing_mm: float) -> Iterator[Labelled]:
    """Labelled volumes of generated people of every center, noiseless: the synthesis adds noise of its own."""
    for place, person in enumerate(islice(drawn_people(n, seed=seed), n)):
        yield _of_scan(scan_for(person, place, spacing_mm=spacing_mm, is_noisy=False))


def scan_for(person: Person, place: int, *, spacing_mm: float, is_noisy: bool) -> Scan:
    """The volume of one person: protocols in turn, contrast in every third."""
    protocol = PROTOCOLS_IN_TURN[place % len(PROTOCOLS_IN_TURN)]
    assert protocol in PROTOCOLS
    return scan(
        person, sampling=Sampling(round(FIELD_MM / spacing_mm), FIELD_MM), spacing_mm=spacing_mm, thickness_mm=spacing_mm,
        is_contrast=place % 3 == 0, is_noisy=is_noisy, protocol=protocol,
    )  # fmt: skip


def drawn_people(n: int, *, seed: int) -> Iterator[Person]:
    per_center = -(-n // len(CENTERS))
    drawn = [people(center.name, range(1, per_center + 1), seed=seed, night=1, rates=TRAINING_RATES) for center in CENTERS]
    for together in zip(*drawn, strict=True):
        yield from (replace(person, fault="none") for person in together)


def _of_scan(made: Scan) -> Labelled:
    from ospor_batch.models.segmentation_training import Labelled

    return Labelled(made.hu, structures_of(labels_of(made)))


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

A U-Net on a coarse isotropic grid, trained by label-to-image synthesis on {training["n_generated"]} generated volumes and on
{training["n_labelled"]} real ones with masks (seed {training["seed"]}).
It names the bodies of T1 to S1, muscle, subcutaneous and visceral fat.

Generated bodies prove the chain and not clinical worth: measure it on masked CT of your own scanners before use
(`benchmarks/segmentation.py --real FOLDER --model FOLDER`). Not for diagnosis.
"""
