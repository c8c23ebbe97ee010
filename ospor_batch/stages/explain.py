"""Where the networks looked: average Grad-CAM per class in a common frame, each region's share, private pictures."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from ospor_batch.compute.executor import Executor, Outcome
from ospor_batch.config import Recipe, Study
from ospor_batch.contracts.table import schema_of
from ospor_batch.errors import OsporError
from ospor_batch.inference.explaining import HEAT, ExplainTask, explain_shard
from ospor_batch.inference.parts import name_of
from ospor_batch.models.heat import Box, Heat, area_share, edges, region_shares
from ospor_batch.models.prepared import PreparedStore
from ospor_batch.models.registry import kind_of
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.models.trainable import Parameters
from ospor_batch.runs import Run
from ospor_batch.stages.evaluate import csv_text
from ospor_batch.stages.located import distinct_items, located
from ospor_batch.stages.shards import costs, cut_shards, write_shards
from ospor_batch.stages.specs import specs_of
from ospor_batch.stages.summary import StageSummary
from ospor_batch.store import Store, storage_errors, write_text

SECTION = "Where the network looked"
CLASSES = {True: "with_target", False: "without_target"}
SAID = {"with_target": "with", "without_target": "without"}
TESTED = ("internal_test", "external")
OUTLINED = ("spine", "left_lung", "right_lung", "clavicles", "below_diaphragm")  # the others are halves
Regions = Mapping[str, Box]
T = TypeVar("T")
Maps = dict[tuple[str, str], list[str]]  # partition and class to item digests


def explains(recipe: Recipe) -> bool:
    """Whether a recipe has a Grad-CAM: a network whose image has regions, asked for some, and no substudy of another."""
    return bool(_regions(recipe)) and recipe.substudy_of is None


def _regions(recipe: Recipe) -> Regions:
    trains = kind_of(recipe.name).trains
    return {} if trains is None else trains.regions


def explain(study: Study, run: Run, *, store: Store, executor: Executor) -> list[StageSummary]:
    """Explain test images of every recipe that can be; write figures, the table of regions and their words for the report."""
    specs, summaries = specs_of(study, run), list[StageSummary]()
    rows, words = list[dict[str, object]](), list[dict[str, object]]()
    for recipe in study.recipes:
        if not explains(recipe):
            continue
        spec = specs[recipe.key]
        chosen = _chosen(study, recipe, run=run, parameters=dict(spec.parameters))
        if not chosen.height:
            continue
        held = _explained(chosen, spec, recipe=recipe, study=study, run=run, store=store, executor=executor)
        summaries += _summaries(study, recipe, chosen=chosen, held=held)
        maps = _maps(chosen, held)
        if maps:
            regions = _regions(recipe)
            rows += _region_rows(recipe.key, maps, held=held, regions=regions)
            words.append(_figure(recipe.key, maps, held=held, run=run, regions=regions, target=study.analysis.target))
    if rows:
        table = pl.DataFrame(rows, schema=schema_of("grad_cam_region"))
        run.write("grad_cam_region", table, under="tables")
        write_text(csv_text(table), target=run.path("grad_cam_region", under="tables").with_suffix(".csv"))
        words.append(_table_words())
        run.write("exhibit", pl.DataFrame(words, schema=schema_of("exhibit")), under="exhibits", stem="explain")
    return summaries


def _chosen(study: Study, recipe: Recipe, *, run: Run, parameters: Parameters) -> pl.DataFrame:
    """At most so many labelled and predicted test images of each partition and class, drawn by their digest."""
    truth = f"is_{study.analysis.target}"
    most = int(str(parameters["explain_images"]))
    predicted = run.read("prediction")["item_digest"].implode()
    rows = run.read("manifest").filter(
        (pl.col("recipe") == recipe.key)
        & pl.col("is_performance_index")
        & pl.col("partition").is_in(TESTED)
        & pl.col(truth).is_not_null()
        & pl.col("item_digest").is_in(predicted)
    )
    rows = rows.unique(subset="item_digest", keep="first", maintain_order=True).sort("item_digest")
    kept = rows.with_columns(truth=pl.col(truth)).group_by("partition", "truth", maintain_order=True).head(most)
    return kept.with_columns(rank=pl.int_range(pl.len()).over("partition", "truth"))


def _explained(
    chosen: pl.DataFrame, spec: PredictorSpec, *, recipe: Recipe, study: Study, run: Run, store: Store, executor: Executor
) -> PreparedStore:
    folder = run.private.absolute() / "grad_cam" / recipe.key
    shards_folder = run.private.absolute() / "explain"
    most = int(str(dict(spec.parameters)["explain_pictures"]))
    pictured = frozenset(chosen.filter(pl.col("rank") < most)["item_digest"])

    def task_of(shard: str) -> ExplainTask:
        return ExplainTask(shard, shards_folder / f"{shard}.parquet", folder, spec, pictured)

    files = located(distinct_items(chosen), study, store=store, run=run)
    for outcome in over_shards(files, explain_shard, task_of, folder=shards_folder, study=study, executor=executor):
        if outcome.error is not None:
            raise OsporError(
                f"explain {recipe.key}: ended with {outcome.error} on its worker; run again, or set "
                "recipes.parameters.explain_images = 0 to go without"
            )
    return PreparedStore(folder)


def over_shards(
    files: pl.DataFrame,
    work: Callable[[T], int],
    task_of: Callable[[str], T],
    *,
    folder: Path,
    study: Study,
    executor: Executor,
) -> Iterator[Outcome[T, int]]:
    """Do some work on every shard of files; the private folder of shards is gone after."""
    shards = cut_shards(costs(files), megabytes=float(study.compute.cpu.shard_megabytes))
    try:
        write_shards(shards, files, folder=folder)
        yield from executor.map(work, [task_of(name_of(shard)) for shard in shards])
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # it holds paths


def _maps(chosen: pl.DataFrame, held: PreparedStore) -> Maps:
    found: Maps = {}
    for item, partition, truth in chosen.select("item_digest", "partition", "truth").iter_rows():
        if item in held.items:
            found.setdefault((partition, CLASSES[truth]), []).append(item)
    return dict(sorted(found.items()))


def _region_rows(recipe: str, maps: Maps, *, held: PreparedStore, regions: Regions) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for (partition, kind), items in maps.items():
        heats = [heat for item in items if (heat := held.example(item).arrays[HEAT]).any()]
        shares = [region_shares(heat, regions) for heat in heats] or [dict.fromkeys(regions, 0.0)]
        for name, box in regions.items():
            values, area = np.array([share[name] for share in shares]), area_share(box)
            rows.append(
                {
                    "recipe": recipe, "partition": partition, "class": kind, "region": name, "n_images": len(items),
                    "n_without_heat": len(items) - len(heats), "area_share": area,
                    "heat_share": float(min(values.mean(), 1.0)), "heat_share_sd": float(values.std()),
                    "ratio": float(values.mean() / area),
                }
            )  # fmt: skip
    return rows


def _figure(recipe: str, maps: Maps, *, held: PreparedStore, run: Run, regions: Regions, target: str) -> dict[str, object]:
    """Draw the mean map of each partition and class; the words that stand beside it."""
    means = {key: np.mean([held.example(item).arrays[HEAT] for item in items], axis=0) for key, items in maps.items()}
    name = f"{_safe(recipe)}-grad-cam.png"
    target_file = run.folder / "figures" / name
    with storage_errors():
        target_file.parent.mkdir(parents=True, exist_ok=True)
        target_file.write_bytes(heat_figure(means, maps, regions=regions, target=target))
    counts = "; ".join(f"{partition} {SAID[kind]} {target}: {len(items)}" for (partition, kind), items in maps.items())
    return {
        "file": name, "kind": "figure", "recipe": recipe, "contract": None, "section": SECTION, "position": 0,
        "title": "Mean Grad-CAM by class, in a common frame",
        "caption": f"Mean over images of maps that each reach 1; images: {counts}. The frame is the exposed field in the "
        "middle of a square; the patient's left is on the right. Lines: declared regions. A map shows where the last layer "
        "raised the score, not why, and nothing about cause.",
        "alt_text": "Heat maps, one for each partition and class, with the outlines of regions; the shares stand in the table.",
        "hidden_columns": None,
    }  # fmt: skip


def heat_figure(means: Mapping[tuple[str, str], Heat], maps: Maps, *, regions: Regions, target: str) -> bytes:
    """A panel for each partition and class as PNG; the same maps make the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(3.4 * len(means) + 0.8, 3.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    greatest = max(float(mean.max()) for mean in means.values()) or 1.0
    for at, (key, mean) in enumerate(means.items(), start=1):
        axes = figure.add_subplot(1, len(means), at)
        shown = axes.imshow(mean, cmap="inferno", vmin=0, vmax=greatest, interpolation="bilinear")
        for name in (name for name in OUTLINED if name in regions):
            top, bottom, left, right = edges(regions[name])
            size = right - left - 1, bottom - top - 1
            axes.add_patch(Rectangle((left, top), *size, fill=False, edgecolor="white", linewidth=0.8))
            is_last = bottom >= len(mean) and top > 0  # its name stands at the foot of the frame, where no outline crosses it
            y, va = (bottom - 2, "bottom") if is_last else (top + 1, "top")
            axes.text(left + 1, y, name.replace("_", " "), color="white", fontsize=7, va=va)
        partition, kind = key
        axes.set_title(
            f"{partition.replace('_', ' ')}\n{SAID[kind]} {target.replace('_', ' ')}, n = {len(maps[key])}", fontsize=9
        )
        axes.set_axis_off()
    figure.colorbar(shown, ax=figure.axes, shrink=0.8, label="mean heat")
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _table_words() -> dict[str, object]:
    return {
        "file": "grad_cam_region", "kind": "table", "recipe": "all", "contract": "grad_cam_region", "section": SECTION,
        "position": 1, "title": "Share of the heat by region",
        "caption": "Mean over images with heat of the share of each map that lies in a region, beside the region's share of "
        "the frame. Regions overlap. Labelled and scored test images, at most recipes.parameters.explain_images of each class.",
        "alt_text": None, "hidden_columns": None,
    }  # fmt: skip


def _summaries(study: Study, recipe: Recipe, *, chosen: pl.DataFrame, held: PreparedStore) -> list[StageSummary]:
    refused = held.refusals()
    found = []
    for center in study.centers:
        items = chosen.filter(pl.col("center") == center.name)["item_digest"].to_list()
        n_done = sum(item in held.items for item in items)
        n_refused = sum(item in refused for item in items)
        if items:
            found.append(StageSummary(f"explain {recipe.key}", center.name, "series", len(items), n_done, n_refused, 0).check())
    return found


def _safe(name: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower())
