"""Train the segmentation network on generated volumes and measure it on held-out generated and on real masked CT.

Usage: segmentation.py [--model FOLDER] [--out FOLDER] [--people N] [--steps N] [--held-out N] [--real FOLDER] [--json FILE]
                       [--pictures FOLDER]

Without --model a network is trained (and kept in --out, where given). FOLDER of --real holds the masked CT sets of
`CASES`; none of them is ever trained on. Dice is of whole vertebral bodies, on the grid of the images.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from ospor_batch.errors import ItemRefused
from ospor_batch.evaluation.overlap import overlap
from ospor_batch.imaging.reader import read_volume
from ospor_batch.imaging.volume import LabelGrid, Volume, onto_volume
from ospor_batch.models.segmentation import Segmented, segment
from ospor_batch.models.segmentation_classes import FILE_VALUES, LEVELS, TISSUES
from ospor_batch.models.segmentation_folder import open_segmentation
from ospor_batch.stages.segmentation import Asked, train_segmentation
from ospor_batch.stages.segmentation_volumes import FIELD_MM, drawn_people
from ospor_batch.synthetic.ct import ProtocolName, Sampling, Scan, scan
from ospor_batch.synthetic.population import Person
from ospor_batch.synthetic.truth_masks import labels_of

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
HELD_OUT_MM = 2.0  # of the held-out generated volumes, noisy as scanners are
# What the held-out people's CT cover, in turn; contrast in every third
PROTOCOLS: tuple[ProtocolName, ...] = ("abdomen", "abdomen", "spine", "chest", "abdomen", "lumbar")
NAMED = 0.25  # share of a true body from which it counts as named; less is the rim of its neighbour


@dataclass(frozen=True)
class Case:
    """A volume with its true labels: numbers of the mask to structures. whole_bones: masks of bones, not of bodies."""

    name: str
    volume: Volume
    truth: np.ndarray[Any, Any]
    names: Mapping[int, str]
    whole_bones: bool = False
    muscle: tuple[int, ...] = ()  # numbers of muscles that the mask names; it does not hold all muscle


@dataclass
class Found:
    """Dice and HD95 by structure; by level and, where the level is wrong, of the body itself."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    levels: list[dict[str, Any]] = field(default_factory=list)
    shares: list[dict[str, Any]] = field(default_factory=list)  # of named muscles that were called muscle

    def add(self, case: Case, made: Segmented | None, *, seconds: float) -> None:
        if case.muscle:
            named = np.isin(case.truth, case.muscle)
            share = 0.0 if made is None else float((made.labels[named] == FILE_VALUES["muscle"]).mean())
            self.shares.append({"case": case.name, "muscle_found": round(share, 3)})
        for number, name in case.names.items():
            truth = case.truth == number
            if truth.sum() * case.volume.voxel_ml < 0.5 or (name in TISSUES and case.whole_bones):
                continue
            mine = np.zeros(truth.shape, bool) if made is None else made.labels == FILE_VALUES.get(name, -1)
            spacing = case.volume.spacing
            measured = overlap(mine, truth, spacing_mm=spacing)
            body = _best_body(made, truth) if made is not None and name not in TISSUES else None
            is_cut = _is_cut(truth) and name not in TISSUES
            confidence = None if made is None else next((b.confidence for b in made.bodies if b.level == name), None)
            self.rows.append(
                {"case": case.name, "structure": name, "dice": measured.dice, "hd95_mm": measured.hd95_mm,
                 "dice_any_level": body, "is_cut": is_cut, "confidence": confidence, "seconds": round(seconds, 2)}
            )  # fmt: skip


def _levels(case: Case, made: Segmented | None) -> dict[str, Any]:
    """How many true bodies that no slice cuts were named rightly and wrongly, and whether the chain hands them out."""
    present = [(n, name) for n, name in case.names.items() if name in LEVELS and (case.truth == n).any()]
    # what is left of a body that the first or last slice cuts is no body to be named, unless there is no other
    names = [(n, name) for n, name in present if not _is_cut(case.truth == n)] or present
    given = ["" if made is None else _name_of(made, case.truth == n) for n, _ in names]
    right = sum(mine == name for mine, (_, name) in zip(given, names, strict=True))
    chain = made.bodies if made is not None else ()
    return {
        "case": case.name, "true": f"{present[0][1]} to {present[-1][1]}", "n": len(names), "right": right,
        "wrong": sum(bool(mine) for mine in given) - right,
        "found": f"{chain[0].level} to {chain[-1].level}" if chain else "no body",
        "confidence": round(chain[0].confidence, 3) if chain else None,
        "counted_from": list(chain[0].counted_from) if chain else [],
    }  # fmt: skip


def _said(of: Mapping[str, Any]) -> str:
    handed = f"counted from {' and '.join(of['counted_from'])}" if of["counted_from"] else "refused"
    return (f"{of['case']}: true {of['true']}, found {of['found']}; of {of['n']} whole bodies {of['right']} at their level, "
            f"{of['wrong']} at another; confidence {of['confidence']}; {handed}")  # fmt: skip


def _tally(kind: str, levels: list[dict[str, Any]]) -> str:
    """What leaves the chain: bodies at their level and at another of the cases handed out, and how many were refused."""
    handed = [of for of in levels if of["counted_from"]]
    right, wrong, n = (sum(of[key] for of in handed) for key in ("right", "wrong", "n"))
    refused = [of for of in levels if not of["counted_from"]]
    needless = sum(not of["wrong"] and of["right"] > 0 for of in refused)
    return (f"{kind}: {len(levels)} cases; {len(handed)} handed out, with {right} of {n} bodies at their level and {wrong} at "
            f"another; {len(refused)} refused, of which {needless} were named rightly all the same")  # fmt: skip


def _name_of(made: Segmented, truth: np.ndarray[Any, Any]) -> str:
    """The level that most of what was found inside a true body was given; empty where less than `NAMED` of it was."""
    inside = made.labels[truth]
    names = {value: level for level, value in FILE_VALUES.items() if level in LEVELS}
    found = np.bincount(inside[np.isin(inside, list(names))], minlength=1)
    return names[int(found.argmax())] if found.max() >= NAMED * len(inside) else ""


def _is_cut(truth: np.ndarray[Any, Any]) -> bool:
    """Whether the first or last slice cuts a body."""
    return bool(truth[0].any() or truth[-1].any())


def _best_body(made: Segmented, truth: np.ndarray[Any, Any]) -> float:
    """Dice of the body that overlaps most, whatever level it was given."""
    inside, spine = made.labels[truth], [FILE_VALUES[level] for level in LEVELS]
    inside = inside[np.isin(inside, spine)]
    if not len(inside):
        return 0.0
    number = np.bincount(inside).argmax()
    mine = made.labels == number
    return float(2 * (mine & truth).sum() / (mine.sum() + truth.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--held-out", type=int, default=12)
    shared = os.environ.get("OSPOR_SHARED", "../shared")
    parser.add_argument("--real", type=Path, default=Path(shared) / "data" / "real" / "ct")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    folder, trained_s = asked.model, None
    if folder is None:
        folder = asked.out or Path(tempfile.mkdtemp()) / "segmentation"
        began = time.process_time()
        train_segmentation(folder, Asked(people=asked.people, parameters={"steps": asked.steps}), progress=_say)
        trained_s = time.process_time() - began
        print(f"trained in {trained_s:.0f} s of one core")
    network, parameters = open_segmentation(folder)
    found = {"generated": Found(), "real": Found()}
    for kind, cases in (("generated", _generated(asked.held_out)), ("real", _real(asked.real))):
        for case in cases:
            began = time.process_time()
            try:  # with levels that the chain would refuse, so that the refusal can be judged
                made: Segmented | None = segment(case.volume, network, parameters={**parameters, "needs_landmark": False})
            except ItemRefused:
                made = None
            found[kind].add(case, made, seconds=time.process_time() - began)
            found[kind].levels.append(_levels(case, made))
            print(_said(found[kind].levels[-1]), flush=True)
            if asked.pictures:
                _picture(case, made, asked.pictures)
        _print(kind, found[kind].rows)
        print(_tally(kind, found[kind].levels))
        for said in found[kind].shares:
            print(f"{said['case']}: {said['muscle_found']:.2f} of the muscles of the back found as muscle")
    if asked.json:
        rows = {kind: of.rows for kind, of in found.items()} | {"muscle_found": found["real"].shares}
        rows |= {"levels": {kind: of.levels for kind, of in found.items()}}
        asked.json.write_text(json.dumps({"trained_s": trained_s, "model": folder.name, **rows}, indent=1) + "\n")


def _say(step: int, steps: int) -> None:
    if step % 100 == 0:
        print(f"step {step} of {steps}", flush=True)


def _generated(n: int) -> Iterator[Case]:
    """People of another seed, at a finer grid and with the noise of their scanners."""
    names = {value: name for name, value in FILE_VALUES.items()}
    for place, person in enumerate(islice(drawn_people(n, seed=99), n)):
        made = _scan(person, place)
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[::-1] * np.array(made.grid.step)[::-1]
        affine[:3, 3] = made.grid.origin
        volume = Volume(made.hu.astype(np.float32), affine)
        yield Case(f"{made.protocol} ({person.vendor})", volume, labels_of(made), names)


def _scan(person: Person, place: int) -> Scan:
    return scan(
        person, sampling=Sampling(round(FIELD_MM / HELD_OUT_MM), FIELD_MM), spacing_mm=HELD_OUT_MM, thickness_mm=HELD_OUT_MM,
        is_contrast=place % 3 == 0, protocol=PROTOCOLS[place % len(PROTOCOLS)],
    )  # fmt: skip


def _real(folder: Path) -> Iterator[Case]:
    """The masked sets at hand, each where it is found."""
    if (at := folder / "ts_lumbar_3mm").is_dir():
        volume = _nifti_volume(at / "example_ct.nii.gz")
        levels = {19: "T12", **{19 + i: f"L{i}" for i in range(1, 6)}}
        yield Case("ts_lumbar_3mm", volume, _nifti_labels(at / "totalseg_vertebrae_pp_refined.nii.gz", volume), levels)
    if (at := folder / "ts_siemens_series").is_dir():
        volume = read_volume(sorted((at / "dicom").iterdir()))
        truth = _nifti_labels(at / "example_seg_dicom.nii.gz", volume)
        names = {32: "T12", 33: "T11"}
        yield Case("ts_siemens_series (whole bones)", volume, truth, names, whole_bones=True, muscle=(86, 87))
    if (at := folder / "tptbox_L3").is_dir():
        volume = _nifti_volume(at / "sub-ct_label-22_ct.nii.gz")
        part = _nifti_labels(at / "sub-ct_seg-subreg_label-22_msk.nii.gz", volume)
        bone = _nifti_labels(at / "sub-ct_seg-vert_label-22_msk.nii.gz", volume)
        truth = np.where(np.isin(part, (49, 50)), bone, 0)  # cortex and inside of the bodies
        yield Case("tptbox_L3 (crop)", volume, truth, {21: "L2", 22: "L3", 23: "L4"})


def _nifti_volume(path: Path) -> Volume:
    image: Any = nib.load(path)
    return Volume(np.asarray(image.dataobj, dtype=np.float32), RAS_TO_LPS @ image.affine)


def _nifti_labels(path: Path, volume: Volume) -> np.ndarray[Any, Any]:
    image: Any = nib.load(path)
    return onto_volume(LabelGrid(np.asarray(image.dataobj).astype(np.int32), RAS_TO_LPS @ image.affine), volume)


def _print(kind: str, rows: list[dict[str, Any]]) -> None:
    by: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by[row["structure"] if kind == "generated" else f"{row['case']}: {row['structure']}"].append(row)
    print(f"\n{kind}: {'structure':44} {'n':>3} {'dice':>6} {'least':>6} {'hd95':>6} {'any lvl':>8} {'conf':>5}   (cut apart)")
    for name in sorted(by):
        for is_cut in (False, True):
            mine = [row for row in by[name] if row["is_cut"] is is_cut]
            if mine:
                dice = [row["dice"] for row in mine]
                mean = [_mean(row[key] for row in mine) for key in ("hd95_mm", "dice_any_level", "confidence")]
                said = " ".join(f"{'-' if m is None else format(m, '.2f'):>7}" for m in mean)
                told = name + (" (cut)" if is_cut else "")
                print(f"{'':11}{told:44} {len(mine):>3} {np.mean(dice):6.3f} {min(dice):6.3f} {said}")


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _picture(case: Case, made: Segmented | None, folder: Path) -> None:
    """Sagittal and axial planes with both masks."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    volume = case.volume
    turned, flips = _to_patient(volume)
    arrays = [turned(volume.hu), turned(case.truth), turned(made.labels if made else np.zeros_like(case.truth))]
    spine = np.argwhere(np.isin(arrays[1], [n for n, name in case.names.items() if name in LEVELS]))
    z, _, x = spine.mean(axis=0).astype(int) if len(spine) else np.array(arrays[0].shape) // 2
    figure, axes = plt.subplots(2, 3, figsize=(12, 8))
    kinds = np.unique(np.concatenate([np.unique(array) for array in arrays[1:]]))  # a colour each
    for column, array in enumerate(arrays):
        for row, image in enumerate((array[:, :, x][::-1], array[z])):
            aspect = flips[0] / flips[1] if row == 0 else flips[1] / flips[2]
            if column == 0:
                axes[row, column].imshow(image, cmap="gray", vmin=-200, vmax=400, aspect=aspect)
            else:
                axes[row, column].imshow(
                    np.ma.masked_where(image == 0, np.searchsorted(kinds, image)), cmap="tab20", vmin=0, vmax=19, aspect=aspect
                )
            axes[row, column].axis("off")
    figure.suptitle(case.name)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{''.join(c if c.isalnum() else '_' for c in case.name)}.png", dpi=60)
    plt.close(figure)


def _to_patient(volume: Volume) -> tuple[Any, tuple[float, float, float]]:
    """A function that turns an array to (z up, y back, x left), and the spacing of these axes."""
    closest = [int(np.abs(volume.direction[axis]).argmax()) for axis in (2, 1, 0)]
    signs = [volume.direction[axis, index] < 0 for axis, index in zip((2, 1, 0), closest, strict=True)]
    spacing = [volume.spacing[index] for index in closest]

    def turned(array: Any) -> Any:
        moved = np.transpose(array, closest)
        return np.flip(moved, [place for place, sign in enumerate(signs) if sign])

    return turned, (spacing[0], spacing[1], spacing[2])


if __name__ == "__main__":
    main()
