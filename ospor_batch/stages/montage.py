"""Sheets of CT slices under their masks, to look whether masks and levels fit; single patients, so they stay private."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ospor_batch.compute.executor import Executor
from ospor_batch.config import Recipe, Study
from ospor_batch.errors import NothingToDoError, OsporError, StudyError
from ospor_batch.imaging.overlay import Colour, Picture, colours_of
from ospor_batch.inference.overlaying import PICTURE, OverlayTask, overlay_shard
from ospor_batch.models.prepared import PreparedStore
from ospor_batch.models.registry import kind_of
from ospor_batch.models.spec import PredictorSpec
from ospor_batch.runs import Run
from ospor_batch.stages.explain import over_shards
from ospor_batch.stages.located import distinct_items, located
from ospor_batch.stages.run_models import models_of
from ospor_batch.stages.specs import specs_of
from ospor_batch.store import Store, storage_errors

COLUMNS, ROWS = 3, 4  # of series on a sheet


@dataclass(frozen=True)
class Montage:
    """The sheets of one recipe. refused: series that were chosen and could not be drawn, by reason."""

    recipe: str
    n_series: int
    refused: dict[str, int]
    sheets: tuple[Path, ...]


def montage(study: Study, run: Run, *, store: Store, executor: Executor, recipe: str | None, most: int) -> list[Montage]:
    """Draw at most so many predicted series of each recipe that reads masks; doubtful ones first, then by digest."""
    wanted = [one for one in study.recipes if recipe in {None, one.key} and kind_of(one.name).reads_masks]
    if not wanted:
        known = ", ".join(one.key for one in study.recipes if kind_of(one.name).reads_masks) or "none"
        raise StudyError(f"montage: no recipe {recipe or ''} that reads masks; this study has {known}")
    if not run.has("prediction"):
        raise NothingToDoError("montage: this run has predicted nothing yet; run `ospor-batch run STUDY` first")
    specs = specs_of(study, run)
    return [_montage(study, one, run=run, store=store, executor=executor, spec=specs[one.key], most=most) for one in wanted]


def _montage(
    study: Study, recipe: Recipe, *, run: Run, store: Store, executor: Executor, spec: PredictorSpec, most: int
) -> Montage:
    chosen = _chosen(recipe, run=run, most=most)
    folder = run.private.absolute() / "montage" / recipe.key
    shards_folder = run.private.absolute() / "montage_shards"

    def task_of(shard: str) -> OverlayTask:
        return OverlayTask(shard, shards_folder / f"{shard}.parquet", folder, spec)

    if chosen.height:
        files = located(distinct_items(chosen), study, store=store, run=run)
        for outcome in over_shards(files, overlay_shard, task_of, folder=shards_folder, study=study, executor=executor):
            if outcome.error is not None:
                raise OsporError(f"montage {recipe.key}: ended with {outcome.error} on its worker; ask again for fewer series")
    held = PreparedStore(folder)
    drawn = chosen.filter(pl.col("item_digest").is_in(list(held.items)))
    refused = held.refusals()
    reasons = [refused[item].reason for item in chosen["item_digest"] if item in refused]
    sheets = _sheets(drawn, held, folder=folder, colours=_named_colours(spec), name=recipe.key)
    return Montage(recipe.key, drawn.height, {reason: reasons.count(reason) for reason in sorted(set(reasons))}, sheets)


def _chosen(recipe: Recipe, *, run: Run, most: int) -> pl.DataFrame:
    """Predicted series with what was said of them, those with flags first."""
    rows = run.read("manifest").filter(pl.col("recipe") == recipe.key).unique(subset="item_digest", keep="first")
    model, parameters = models_of(run)[recipe.key]
    mine = run.read("prediction").filter((pl.col("model_digest") == model) & (pl.col("parameter_digest") == parameters))
    said = mine.select("item_digest", "predicted_value", "predicted_value_unit", "flags").unique(subset="item_digest")
    found = rows.join(said, on="item_digest").with_columns(is_doubtful=pl.col("flags") != "")
    return found.sort(pl.col("is_doubtful"), "item_digest", descending=[True, False]).head(most)


def _named_colours(spec: PredictorSpec) -> dict[str, Colour]:
    levels, tissues = dict(spec.masks.labels), dict(spec.masks.tissues)
    by_label = colours_of(levels, tissues)
    return {name: by_label[label] for name, label in {**levels, **tissues}.items()}


def _sheets(
    drawn: pl.DataFrame, held: PreparedStore, *, folder: Path, colours: dict[str, Colour], name: str
) -> tuple[Path, ...]:
    targets = []
    rows = drawn.to_dicts()
    for number, first in enumerate(range(0, len(rows), COLUMNS * ROWS), start=1):
        part = rows[first : first + COLUMNS * ROWS]
        tiles = [held.example(row["item_digest"]).arrays[PICTURE] for row in part]
        target = folder / f"{name}-{number:02d}.png"
        with storage_errors():
            target.write_bytes(sheet(tiles, [_said(row) for row in part], colours=colours))
        targets.append(target)
    return tuple(targets)


def _said(row: dict[str, object]) -> str:
    """What stands over a picture: no name, number or date."""
    flags = str(row["flags"]).replace(";", " ")
    value = f"{row['predicted_value']:.4g} {row['predicted_value_unit']}"
    return f"{str(row['item_digest'])[:8]}  {row['center']}  {value}" + (f"\n{flags[:70]}" if flags else "")


def sheet(tiles: Sequence[Picture], words: Sequence[str], *, colours: dict[str, Colour]) -> bytes:
    """One sheet as PNG; the same pictures make the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    n_rows = -(-len(tiles) // COLUMNS)
    figure = Figure(figsize=(5.2 * COLUMNS, 3.0 * n_rows + 0.5), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for at, (tile, said) in enumerate(zip(tiles, words, strict=True), start=1):
        axes = figure.add_subplot(n_rows, COLUMNS, at)
        axes.imshow(tile, interpolation="nearest")
        axes.set_title(said, fontsize=9, loc="left")
        axes.set_axis_off()
    handles = [Patch(color=tuple(part / 255 for part in colour), label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 12), fontsize=9, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
