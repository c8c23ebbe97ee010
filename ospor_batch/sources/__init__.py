"""The bytes of a file, wherever it lies: on disk, inside a zip or tar, in an S3 bucket, behind DICOMweb."""

from ospor_batch.sources.local import content_digest
from ospor_batch.sources.locations import Location, Stored, locate, open_bytes, read_bytes
from ospor_batch.sources.names import local_path, path_name, path_text

__all__ = [
    "Location", "Stored", "content_digest", "local_path", "locate", "open_bytes", "path_name", "path_text", "read_bytes",
]  # fmt: skip
