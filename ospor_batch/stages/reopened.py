"""Which series a night's files reopen: those touched, and those that share an object, a mask or a folder with them."""

from __future__ import annotations

import math

import polars as pl

from ospor_batch.catalog.vocabulary import sop_class_is
from ospor_batch.pseudonym import pseudonym
from ospor_batch.store import Store, bucket_groups, number_of

SHARE_ROWS = 500_000  # instance keys compared at once: 0.1 GB
BATCH_ROWS = 60_000  # instances grouped at once: 0.3 GB; a series is never parted
SERIES = pl.Schema({"series_key": pl.String()})


class Reopening:
    """The series of one center that must be judged anew; all of them, or those that rows after a commit touch."""

    def __init__(self, store: Store, center: str, *, key: bytes) -> None:
        self._store = store
        self._center = center
        self._key = key
        self._masks = self._segmentations()

    def everything(self) -> list[pl.DataFrame]:
        """Every series ever seen, in batches that hold all that share an object."""
        return self._batches(self._ever("series_key"), self._all_entangled())

    def after(self, sweep_number: int) -> list[pl.DataFrame]:
        """The series that rows written after a commit reopen, in batches; empty when there is none."""
        touched = self._store.ever("instance", center=self._center, columns=["series_key"], after=sweep_number)
        touched = _together(touched, self._beside_changed_masks(sweep_number))
        touched = _together(touched, self._images_of(touched))
        touched, entangled = self._entangled_with(touched)
        return self._batches(touched, entangled) if touched.height else []

    def context(self, own: pl.DataFrame) -> pl.DataFrame:
        """Series of segmentations that may be masks of these series."""
        studies = self._ever("study_key", among=own)
        of_study = self._masks.join(studies, on="study_key", how="semi").select("series_key")
        by_name = self._masks.join(own, left_on="of_series", right_on="series_key", how="semi").select("series_key")
        return _together(of_study, by_name).join(own, on="series_key", how="anti")

    def _ever(self, *columns: str, among: pl.DataFrame | None = None) -> pl.DataFrame:
        return self._store.ever("instance", center=self._center, columns=columns, among=among).drop_nulls(columns[0])

    def _batches(self, own: pl.DataFrame, entangled: pl.DataFrame) -> list[pl.DataFrame]:
        sizes = self._store.sizes("instance", center=self._center)
        groups = bucket_groups(sizes, most=BATCH_ROWS)
        if len(groups) == 1:
            return [own]
        free = own.join(entangled, on="series_key", how="anti")
        number = number_of(pl.col("series_key"), "instance")
        batches = list[pl.DataFrame]()
        for group in groups:
            in_group = free.filter(number.is_between(group.start, group.stop - 1))
            batches += _parts(in_group, n=math.ceil(sum(sizes[group.start : group.stop]) / BATCH_ROWS))
        return [batch for batch in [*batches, entangled] if batch.height]

    def _segmentations(self) -> pl.DataFrame:
        """Series of segmentations with study_key and of_series, the series that one names; null when it names none."""
        uids = [uid for uid in self._ever("sop_class_uid")["sop_class_uid"] if sop_class_is(uid, "segmentation")]
        columns = ["series_key", "study_key", "referenced_series_uid"]
        found = self._ever(*columns, among=pl.DataFrame({"sop_class_uid": uids}, schema={"sop_class_uid": pl.String}))
        named = found.with_columns(pl.col("referenced_series_uid").str.split("\\")).explode("referenced_series_uid")
        keys = [uid and pseudonym(uid, kind="series", issuer="", key=self._key) for uid in named["referenced_series_uid"]]
        return named.select("series_key", "study_key", of_series=pl.Series(keys, dtype=pl.String).replace("", None))

    def _images_of(self, touched: pl.DataFrame) -> pl.DataFrame:
        """Series that touched segmentations name, or may belong to by their study."""
        masks = self._masks.join(touched, on="series_key", how="semi")
        if masks.height == 0:
            return masks.select("series_key")
        named = masks.select(series_key="of_series").drop_nulls()
        return _together(named, self._ever("series_key", among=masks.select("study_key")))

    def _beside_changed_masks(self, sweep_number: int) -> pl.DataFrame:
        """Series with a file in a folder in which a NIfTI file came, changed or went."""
        changed = self._store.ever("file", center=self._center, columns=["folder_key", "file_key"], after=sweep_number)
        told = self._store.ever("file", center=self._center, columns=["folder_key", "reason"], among=changed)
        folders = told.filter(pl.col("reason") == "nifti").select("folder_key")
        if folders.height == 0:
            return pl.DataFrame(schema=SERIES)
        return self._store.ever("file", center=self._center, columns=["series_key"], among=folders).drop_nulls()

    def _entangled_with(self, touched: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The touched series with all that share an object with them, and those of them that share one."""
        while True:
            objects = self._ever("instance_key", among=touched)
            held = self._ever("instance_key", "series_key", among=objects)
            shared = held.filter(pl.len().over("instance_key") > 1).select("series_key").unique().sort("series_key")
            if shared.join(touched, on="series_key", how="anti").height == 0:
                return touched, shared
            touched = _together(touched, shared)

    def _all_entangled(self) -> pl.DataFrame:
        """Every series that shares an object with another, sought share by share of the objects."""
        n_rows = sum(self._store.sizes("instance", center=self._center))
        found = [pl.DataFrame(schema=SERIES)]
        n_shares = max(1, math.ceil(n_rows / SHARE_ROWS))
        for number in range(n_shares):
            share, columns = (number, n_shares), ["instance_key", "series_key"]
            held = self._store.ever("instance", center=self._center, columns=columns, share=share).drop_nulls()
            found.append(held.filter(pl.len().over("instance_key") > 1).select("series_key"))
        return pl.concat(found).unique().sort("series_key")


def _parts(series: pl.DataFrame, *, n: int) -> list[pl.DataFrame]:
    """Series of a bucket that alone is too large for a batch, spread by digits of their keys that name no bucket."""
    if n <= 1:
        return [series]
    of = pl.col("series_key").str.slice(2, 4).str.to_integer(base=16) % n
    return [series.filter(of == number) for number in range(n)]


def _together(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([one, other]).unique().sort("series_key")
