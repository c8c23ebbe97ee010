"""The only door to tables on disk: Delta tables for the catalog, atomic Parquet parts for runs."""

from ospor_batch.store.buckets import bucket_groups, full_key, n_buckets, number_of
from ospor_batch.store.change import Change, write_data, write_data_rows
from ospor_batch.store.parts import read_part, read_staged, storage_errors, write_part, write_rows, write_staged, write_text
from ospor_batch.store.tables import GRACE_HOURS, Store, SweepCounts, Writing

__all__ = [
    "GRACE_HOURS",
    "Change",
    "Store",
    "SweepCounts",
    "Writing",
    "bucket_groups",
    "full_key",
    "n_buckets",
    "number_of",
    "read_part",
    "read_staged",
    "storage_errors",
    "write_data",
    "write_data_rows",
    "write_part",
    "write_rows",
    "write_staged",
    "write_text",
]
