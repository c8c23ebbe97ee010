"""The prediction store as a worker writes it: whole parts, named after the items they hold."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ospor_batch.contracts import contract
from ospor_batch.errors import ItemRefused, StorageError
from ospor_batch.inference.items import Item
from ospor_batch.models.spec import Prediction, PredictorSpec

# part to contract, in the order of writing: an item is finished once its reject or prediction stands, so vertebrae go first;
# transient rejects stand apart, since they finish nothing and are thrown away before the next try
PARTS = {"vertebra": "vertebra", "reject_transient": "reject", "reject": "reject", "prediction": "prediction"}
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def name_of(items: Iterable[str]) -> str:
    """Name of the shard or part that holds these items; of the same items the same."""
    return hashlib.sha256("\n".join(sorted(items)).encode()).hexdigest()[:16]


def write_parts(rows: Rows, *, name: str, store: Path, spec: PredictorSpec) -> None:
    """Write the parts of some items, each whole or not at all; a part without rows is not written."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            if rows.get(part):
                _write_part(rows[part], part, target=store / f"{part}-{name}.parquet", spec=spec)
    except OSError as error:
        raise StorageError(
            f"the prediction store cannot be written ({type(error).__name__}, errno {error.errno}); free space and run "
            "again: finished work is kept"
        ) from None


def items_of_part(name: str, *, store: Path) -> frozenset[str]:
    """Items with a verdict in the parts of this name; none where none of them stands."""
    found: set[str] = set()
    for part, of in PARTS.items():
        source = store / f"{part}-{name}.parquet"
        if part != "vertebra" and source.exists():
            key = "item_key" if of == "reject" else "item_digest"
            found.update(pq.read_table(source, columns=[key])[key].to_pylist())
    return frozenset(found)


def _write_part(rows: Iterable[Mapping[str, Any]], part: str, *, target: Path, spec: PredictorSpec) -> None:
    of = contract(PARTS[part])
    stamp = of.stamp(predictor=spec.predictor, prediction_key=spec.key)
    table = pa.Table.from_pylist(list(rows), schema=of.arrow_schema().with_metadata(stamp))
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


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


def prediction_row(item: Item, prediction: Prediction, *, spec: PredictorSpec, device: str) -> dict[str, Any]:
    """A prediction; device: that computed it, which out of memory may not be the one of the spec."""
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
        "device": device,
    }


def vertebra_rows(item: Item, prediction: Prediction, *, spec: PredictorSpec) -> list[dict[str, Any]]:
    """What was measured at each level, and what was predicted of it."""
    predicted = dict(prediction.level_values)
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
            "predicted_value": predicted.get(region.level),
            "dice": region.dice,
            "hd95_mm": region.hd95_mm,
        }
        for region in prediction.regions
    ]
