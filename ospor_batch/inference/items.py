"""The series of a shard, and their pixels as a predictor wants them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ospor_batch.imaging.masks import MaskFile
from ospor_batch.imaging.radiograph import read_radiograph
from ospor_batch.imaging.reader import read_volume
from ospor_batch.models.masking import labels_of
from ospor_batch.models.registry import kind_of
from ospor_batch.models.spec import COARSE, Pixels, PredictorSpec
from ospor_batch.sources import Location, locate

PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")  # PS3.5 A.1 and A.2: not compressed
WHENEVER = contextlib.nullcontext()  # may be entered by many at once
READ_BYTES = 1 << 20  # read at a time; a buffer that stays in the processor's cache


@dataclass(frozen=True)
class Item:
    """One series, from the rows of the private shard file."""

    item_digest: str
    series_digest: str
    center: str
    images: tuple[Location, ...]
    masks: tuple[MaskFile, ...]
    is_plain_stack: bool = False
    """Whether its images are many plain files: to read them is to move bytes, which two threads do no faster than one."""


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
                is_plain_stack=len(images) > 1 and all(r["transfer_syntax_uid"] in PLAIN for r in images),
            )
        )
    return items


def fetch(item: Item) -> None:
    """Read the plain files of an item once in large pieces, so that decoding finds them in memory.

    What cannot be read is left to the decoder, which says why. Files in archives and stores are fetched while they are
    decoded.
    """
    buffer = bytearray(READ_BYTES)
    for location in (*item.images, *(mask.path for mask in item.masks)):
        if isinstance(location, Path):
            with contextlib.suppress(OSError), location.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def read_pixels(
    item: Item,
    spec: PredictorSpec,
    *,
    n_threads: int = 1,
    is_whole: bool = False,
    turn: contextlib.AbstractContextManager[object] = WHENEVER,
) -> Pixels:
    """Decode an item as its predictor reads it, its files in so many threads; ItemRefused says why it cannot be.

    is_whole: also where a parameter of the predictor lets it see a part of the resolution. turn: entered while the files are
    decoded, and not while masks are made.
    """
    kind = kind_of(spec.predictor)
    if kind.reads == "radiograph":
        least = 0 if is_whole else int(str(dict(spec.parameters).get(COARSE, 0)))
        return Pixels(radiograph=read_radiograph(item.images, least_pixels=least))
    with turn:
        volume = read_volume(item.images, n_threads=n_threads)
    if not kind.reads_masks:
        return Pixels(volume)
    masked = labels_of(volume, item.masks, rule=spec.masks, device=spec.device)
    return Pixels(volume, masked.labels, mask_flags=masked.flags, overlaps=masked.overlaps)


def _location(row: Mapping[str, Any]) -> Location:
    return locate(row["root"], row["path"], cache=Path(row["cache"]))
