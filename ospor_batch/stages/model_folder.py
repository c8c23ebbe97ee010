"""What stands in a model folder beside the weights: MONAI Bundle metadata, the spec, the card in words."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ospor_batch import __version__
from ospor_batch.config import Recipe, Study
from ospor_batch.evaluation.discrimination import auc
from ospor_batch.inference.fitting import Fit
from ospor_batch.models.bundle import write_bundle
from ospor_batch.models.spec import PREPROCESSING, PredictorSpec
from ospor_batch.models.trainable import IMAGE, Target, TrainableRecipe
from ospor_batch.models.trained import SPACING, UNLIKE_TRAINING
from ospor_batch.stages.specs import threshold_rule
from ospor_batch.stages.training_rows import Learners

STRATA = ("center", "scanner_vendor", "sex", "age_band")
GENERATED = "\n**It was trained on generated images: no figure below says anything about patients.**\n"
PACKAGES = ("torch", "monai", "numpy", "safetensors", "pydicom")


def write_model(
    folder: Path, *, fit: Fit, learners: Learners, trains: TrainableRecipe, spec: PredictorSpec, study: Study
) -> str:
    """Write the model folder of a fit and return its digest; nothing in it depends on clock or host."""
    said = spec_json(fit, learners=learners, trains=trains, spec=spec, study=study)
    said["training_digest"] = folder.name
    metadata = metadata_json(fit, trains=trains, said=said)
    return write_bundle(folder, state=fit.state, metadata=metadata, spec=said, card=model_card(said))


def model_row(
    learners: Learners, *, spec: PredictorSpec, training_digest: str, model_digest: str, said: Mapping[str, Any]
) -> dict[str, object]:
    """The row of contract `model`."""
    data, notes = said["training_data"], said["training"]
    # two recipes may share a model and state different targets of it; the threshold in it is that of one
    is_its_own = dict(spec.parameters).get("reports") == said["parameters"].get("reports")
    return {
        "recipe": learners.recipe.key, "predictor": spec.predictor, "training_digest": training_digest,
        "model_digest": model_digest, "device": said["device"], "n_train": data["n_train"],
        "n_train_events": data["n_train_events"], "n_tuning": data["n_tuning"], "n_tuning_events": data["n_tuning_events"],
        "n_refused": len(learners.refused), "epochs": notes.get("epochs"), "best_epoch": notes.get("best_epoch"),
        "score_cut": said["threshold"]["score_cut"] if is_its_own else None,
    }  # fmt: skip


def spec_json(fit: Fit, *, learners: Learners, trains: TrainableRecipe, spec: PredictorSpec, study: Study) -> dict[str, Any]:
    """Everything that says how the model came about and how it is to be used."""
    tuning = _tuning(fit, learners, target=study.analysis.target)
    masks = spec.masks.identity if trains.reads_masks else None
    parameters = dict(spec.parameters)
    return {
        "recipe": trains.name,
        "recipe_version": trains.version,
        "description": trains.description,
        "parameters": {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()},
        "preprocessing": {"version": PREPROCESSING, "parameters": sorted(trains.preparing), "masks": masks},
        "targets": [_target_json(target) for target in learners.targets],
        "reference": study.reference(learners.recipe.reference).model_dump(mode="json"),
        "target_of_threshold": study.analysis.target,
        "threshold": _threshold_json(learners.recipe, tuning),
        "training_data": _data_json(learners, study),
        "training": dict(fit.notes),
        "metrics_on_tuning": _by_stratum(tuning, smallest=max(1, study.tables.smallest_cell)),
        "seed": study.study.seed,
        "split": study.split.model_dump(mode="json", exclude={"key"}),
        "device": spec.device,
        "versions": versions(),
        "is_generated": study.study.is_generated,
        "arrays": {name: list(np.shape(value)) for name, value in sorted(fit.state.items())},
    }


def _target_json(target: Target) -> dict[str, Any]:
    told = {"column": target.column, "kind": target.kind, "unit": target.unit}
    return {**told, "is_auxiliary": True} if target.is_auxiliary else told


def versions() -> dict[str, str]:
    """Versions of this program, Python and the packages that weights and pixels go through."""
    found = {"ospor_batch": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def metadata_json(fit: Fit, *, trains: TrainableRecipe, said: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with the keys of a MONAI Bundle, so that its tools can read what the folder is."""
    made = said["versions"]
    outputs = [f"{t['column']} ({t['unit']})" for t in said["targets"]]
    shape = [int(side) for side in fit.notes.get("input_shape", [])]
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": f"{__version__}",
        "changelog": {__version__: "trained"},
        "monai_version": made.get("monai", ""),
        "pytorch_version": made.get("torch", ""),
        "numpy_version": made.get("numpy", ""),
        "required_packages_version": {"safetensors": made.get("safetensors", "")},
        "name": trains.name,
        "task": "opportunistic osteoporosis screening",
        "description": trains.description,
        "authors": "ospor_batch",
        "copyright": "see the study that trained it",
        "data_type": "dicom",
        "network_data_format": {
            "inputs": {
                IMAGE: {
                    "type": "image", "format": "hounsfield" if trains.reads == "ct" else "magnitude",
                    "modality": "CT" if trains.reads == "ct" else "CR", "num_channels": shape[0] if shape else 1,
                    "spatial_shape": shape[1:], "dtype": "float32", "value_range": [], "is_patch_data": False,
                    "channel_def": {"0": IMAGE},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities", "format": "regression", "num_channels": len(outputs), "spatial_shape": [],
                    "dtype": "float32", "value_range": [], "is_patch_data": False,
                    "channel_def": {str(at): name for at, name in enumerate(outputs)},
                }
            },
        },
    }  # fmt: skip


def model_card(said: Mapping[str, Any]) -> str:
    """The spec in words, for whoever is handed the folder."""
    data, cut, run = said["training_data"], said["threshold"], said["training"]
    generated = GENERATED if said["is_generated"] else ""
    stated, beside = (
        ", ".join(f"{t['column']} in {t['unit']}" for t in said["targets"] if t.get("is_auxiliary", False) is is_beside)
        for is_beside in (False, True)
    )
    also = f"\nBeside it the network learned {beside}, which is never stated." if beside else ""
    cut_said = f"{cut['id']}" if cut["score_cut"] is not None else f"none ({cut['reason']})"
    strata = "\n".join(_stratum_line(row) for row in said["metrics_on_tuning"]) or "| - | - | - | - | - |"
    parameters = "\n".join(f"- `{name} = {value!r}`" for name, value in sorted(said["parameters"].items()))
    made = ", ".join(f"{name} {number}" for name, number in sorted(said["versions"].items()))
    how = f"{run['epochs']} epochs, kept {run['best_epoch']}, stopped on {run['stopped_on']}" if "epochs" in run else "fitted"
    return f"""\
# {said["recipe"]}, version {said["recipe_version"]}
{generated}
{said["description"]}

It predicts {stated}; the reference standard was `{said["reference"]["id"]}` ({said["reference"]["standard"]}).{also}

## Trained on

{data["n_train"]} labelled series of {len(data["centers"])} center(s) ({", ".join(data["centers"])}), stopped and cut on
{data["n_tuning"]} others; {how}; seed {said["seed"]}, on {said["device"]}.
{_spacing_line(data)}Digest of the people learned from: {data["manifest_digest"]}. Training digest: {said["training_digest"]}.
{made}.

## Threshold

{cut_said}, for {said["target_of_threshold"]}.
It is locked: apply it unchanged, or report a recalibrated one under its own name.

## On the tuning people, whom stopping and threshold have seen

| stratum | value | persons | events | AUC (95 % interval) |
|---|---|---|---|---|
{strata}

Strata with few people of either class are left out. Figures of people that nothing was chosen on stand in the report of a run.

## Limits

It says nothing of people, scanners or hospitals unlike those it learned from, and is no medical device. Images that it was
not made for are refused with a reason; a changed file of this folder is refused as a whole (SHA256SUMS).

## Parameters

{parameters}
"""


def _spacing_line(data: Mapping[str, Any]) -> str:
    """How far slices lay apart; nothing for radiographs."""
    low, high = data[SPACING]
    return "" if low is None else f"Slices lay {low:.2g} to {high:.2g} mm apart; others are flagged {UNLIKE_TRAINING}.\n"


def _stratum_line(row: Mapping[str, Any]) -> str:
    between = "" if row["auc_lower"] is None else f" ({row['auc_lower']:.3f} to {row['auc_upper']:.3f})"
    interval = f"{row['auc']:.3f}{between}"
    return f"| {row['stratum']} | {row['value']} | {row['n_persons']} | {row['n_events']} | {interval} |"


def _tuning(fit: Fit, learners: Learners, *, target: str) -> pl.DataFrame:
    """Tuning people with their score and whether they have the target condition."""
    scores = pl.DataFrame(
        [(item, score) for item, score, _ in fit.answers if score is not None],
        schema={"item_digest": pl.String, "score": pl.Float64},
        orient="row",
    )
    rows = learners.of("tuning").join(scores, on="item_digest")
    return rows.with_columns(truth=pl.col(f"is_{target}")).filter(pl.col("truth").is_not_null())


def _threshold_json(recipe: Recipe, tuning: pl.DataFrame) -> dict[str, Any]:
    cut = threshold_rule(recipe).locked(tuning["truth"].to_numpy(), tuning["score"].to_numpy())
    return {
        "rule": cut.rule, "id": cut.id, "partition": cut.partition, "n_persons": cut.n_persons, "n_events": cut.n_events,
        "data_digest": cut.data_digest, "score_cut": cut.score_cut, "reason": cut.reason,
    }  # fmt: skip


def _data_json(learners: Learners, study: Study) -> dict[str, Any]:
    stated = [target for target in learners.targets if not target.is_auxiliary]
    binary = next((target.column for target in stated if target.kind == "binary"), None)
    found: dict[str, Any] = {}
    for partition in ("train", "tuning"):
        rows = learners.of(partition)
        found[f"n_{partition}"] = rows.height
        found[f"n_{partition}_events"] = None if binary is None else int(rows[binary].fill_null(value=False).sum())
    rows = pl.concat([learners.of("train"), learners.of("tuning")])
    named = rows.select("item_digest", "partition", *(t.column for t in learners.targets)).sort("item_digest")
    return found | {
        "centers": sorted(rows["center"].unique()),
        "scanner_vendors": sorted(rows["scanner_vendor"].unique()),
        "periods": sorted(rows["period"].unique()),
        SPACING: [rows[SPACING].min(), rows[SPACING].max()],
        "manifest_digest": hashlib.sha256(named.write_csv().encode()).hexdigest()[:16],
        "study": study.study.name,
    }


def _by_stratum(tuning: pl.DataFrame, *, smallest: int) -> list[dict[str, Any]]:
    """AUC over all and by stratum; strata with fewer of either class are left out, as they are in a release."""
    found = []
    groups = [("overall", "all", tuning)]
    for stratum in STRATA:
        groups += [(stratum, str(value), rows) for (value,), rows in tuning.group_by(stratum, maintain_order=True)]
    for stratum, value, rows in sorted(groups, key=lambda group: (group[0] != "overall", group[0], group[1])):
        n_events = int(rows["truth"].sum())
        if min(n_events, rows.height - n_events) < smallest:
            continue
        area = auc(rows["truth"].to_numpy(), rows["score"].to_numpy(), minimum_events=smallest)
        if area.value is not None:
            found.append(
                {
                    "stratum": stratum, "value": value, "n_persons": rows.height, "n_events": n_events, "auc": area.value,
                    "auc_lower": area.lower,
                    "auc_upper": area.upper,
                }
            )  # fmt: skip
    return found
