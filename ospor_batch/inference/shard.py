"""Predict one shard on a worker: read names, leave whole parts behind, answer with counts.

A task holds the shard's name, two folders and the frozen spec; paths stand in the private shard file alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ospor_batch.contracts import contract
from ospor_batch.errors import ItemRefused, LedgerError, StorageError
from ospor_batch.imaging.masks import MaskFile, levels_on
from ospor_batch.imaging.reader import read_volume
from ospor_batch.models.registry import PREDICTORS, predictor_here
from ospor_batch.models.spec import Pixels, Prediction, PredictorSpec
from ospor_batch.sources import Location, locate

# part to contract, in the order of writing: an item is finished once its reject or prediction stands, so vertebrae go first;
# transient rejects stand apart, since they finish nothing and are thrown away before the next try
PARTS = {"vertebra": "vertebra", "reject_transient": "reject", "reject": "reject", "prediction": "prediction"}


@dataclass(frozen=True)
class ShardTask:
    """What is sent to a worker.

    shards: private folder of the shard files. predictions: folder of the prediction store.
    """

    shard: str
    shards: Path
    predictions: Path
    spec: PredictorSpec

    @property
    def source(self) -> Path:
        return self.shards / f"{self.shard}.parquet"

    @property
    def store(self) -> Path:
        """Where the parts of this model and these parameters lie."""
        return self.predictions / self.spec.key


@dataclass(frozen=True)
class ShardReceipt:
    """What a worker answers once its parts are durable."""

    shard: str
    n_items: int
    n_predicted: int
    n_rejected: int


@dataclass(frozen=True)
class Item:
    """One series to be predicted, from the rows of the private shard file."""

    item_digest: str
    series_digest: str
    center: str
    images: tuple[Location, ...]
    masks: tuple[MaskFile, ...]


def predict_shard(task: ShardTask) -> ShardReceipt:
    """Predict every item of a shard and write its parts; each item ends as a prediction or as a reject."""
    items = read_items(task.source)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in PARTS}
    for item in items:
        try:
            prediction = _predict(item, task.spec)
        except ItemRefused as refusal:
            part = "reject_transient" if refusal.is_transient else "reject"
            rows[part].append(reject_row(item.item_digest, item.center, spec=task.spec, refusal=refusal))
        else:
            rows["prediction"].append(_prediction_row(item, prediction, task.spec))
            rows["vertebra"].extend(_vertebra_rows(item, prediction, task.spec))
    write_parts(rows, task)
    n_rejected = len(rows["reject"]) + len(rows["reject_transient"])
    receipt = ShardReceipt(task.shard, len(items), len(rows["prediction"]), n_rejected)
    if receipt.n_predicted + receipt.n_rejected != receipt.n_items:
        raise LedgerError(f"shard {task.shard}: {receipt.n_items} items, but {receipt.n_predicted} + {receipt.n_rejected}")
    return receipt


def read_items(source: Path) -> list[Item]:
    """The items of a private shard file, in its order.

    Columns: item_digest, series_digest, root (as Study.archive_root says), cache (private folder for what must lie on
    disk to be read) and those of schemas/locator.yaml.
    """
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(source).to_pylist():
        grouped.setdefault(row["item_digest"], []).append(row)
    items = []
    for digest, rows in grouped.items():
        images = sorted((r for r in rows if r["kind"] == "image"), key=lambda r: (r["slice_order"], r["file_key"]))
        masks = sorted((r for r in rows if r["kind"] != "image"), key=lambda r: (r["kind"], r["file_key"]))
        items.append(
            Item(
                item_digest=digest,
                series_digest=rows[0]["series_digest"],
                center=rows[0]["center"],
                images=tuple(_location(r) for r in images),
                masks=tuple(MaskFile(_location(r), r["kind"]) for r in masks),
            )
        )
    return items


def _location(row: Mapping[str, Any]) -> Location:
    return locate(row["root"], row["path"], cache=Path(row["cache"]))


def reject_row(item_digest: str, center: str, *, spec: PredictorSpec, refusal: ItemRefused) -> dict[str, Any]:
    """A reject of the prediction store; its item_key is the item digest, its scope model and parameters."""
    return {
        "center": center,
        "stage": "infer",
        "level": "series",
        "item_key": item_digest,
        "scope": spec.key,
        "reason": refusal.reason,
        "detail": refusal.detail,
        "is_transient": refusal.is_transient,
    }


def write_parts(rows: Mapping[str, Sequence[Mapping[str, Any]]], task: ShardTask) -> None:
    """Write the parts of a shard, each whole or not at all; a part without rows is not written."""
    try:
        task.store.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            if rows.get(part):
                _write_part(rows[part], part, task=task)
    except OSError as error:
        raise StorageError(
            f"the prediction store cannot be written ({type(error).__name__}, errno {error.errno}); free space and run "
            "again: finished work is kept"
        ) from None


def _write_part(rows: Iterable[Mapping[str, Any]], part: str, *, task: ShardTask) -> None:
    of = contract(PARTS[part])
    stamp = of.stamp(shard=task.shard, predictor=task.spec.predictor, prediction_key=task.spec.key)
    table = pa.Table.from_pylist(list(rows), schema=of.arrow_schema().with_metadata(stamp))
    target = task.store / f"{part}-{task.shard}.parquet"
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _predict(item: Item, spec: PredictorSpec) -> Prediction:
    try:
        volume = read_volume(item.images)
        labels = levels_on(volume, item.masks, rule=spec.masks) if PREDICTORS[spec.predictor].reads_masks else None
        predictor = predictor_here(spec)
        prediction = predictor.predict([predictor.prepare(Pixels(volume, labels))])[0]
    except MemoryError:
        # a larger worker may do it: another try next time
        raise ItemRefused("out_of_memory", "the worker's memory does not hold it", is_transient=True) from None
    if isinstance(prediction, ItemRefused):
        raise prediction
    if not (math.isfinite(prediction.score) and math.isfinite(prediction.value)):
        raise ItemRefused("non_finite", "score or value is no finite number")
    bounds = dict(contract("vertebra").field("mean_hu").constraints)
    for region in prediction.regions:
        if not bounds["minimum"] <= region.mean_hu <= bounds["maximum"]:
            raise ItemRefused("impossible_hu", f"{region.level}: mean {region.mean_hu:.0f} HU is no HU of a body")
    return prediction


def _prediction_row(item: Item, prediction: Prediction, spec: PredictorSpec) -> dict[str, Any]:
    return {
        "item_digest": item.item_digest,
        "series_digest": item.series_digest,
        "predictor": spec.predictor,
        "model_digest": spec.model_digest,
        "parameter_digest": spec.parameter_digest,
        "score": prediction.score,
        "predicted_value": prediction.value,
        "predicted_value_unit": prediction.unit,
        "n_vertebrae": len(prediction.levels),
        "levels": "+".join(prediction.levels),
        "flags": ";".join(prediction.flags),
        "device": spec.device,
    }


def _vertebra_rows(item: Item, prediction: Prediction, spec: PredictorSpec) -> list[dict[str, Any]]:
    return [
        {
            "item_digest": item.item_digest,
            "series_digest": item.series_digest,
            "model_digest": spec.model_digest,
            "parameter_digest": spec.parameter_digest,
            "level": region.level,
            "n_voxels": region.n_voxels,
            "volume_ml": region.volume_ml,
            "mean_hu": region.mean_hu,
            "sd_hu": region.sd_hu,
            "is_touching_edge": region.is_touching_edge,
        }
        for region in prediction.regions
    ]
