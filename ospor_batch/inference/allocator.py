"""Let a worker keep what it frees for a while; fresh pages cost more than the pixels and activations that lie in them.

Dask starts its workers with MALLOC_TRIM_THRESHOLD_ = 65536, which makes the C library give every larger array back to the
system at once: decoding a radiograph and one pass of a network then take half as long again (benchmarks/inference.md).
"""

from __future__ import annotations

import ctypes
import functools

# of malloc.h in glibc; other C libraries have no such call, or one that returns 0
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 256 * 2**20  # free at the end of the heap
LARGEST_BYTES = 32 * 2**20  # the most that glibc takes; larger arrays come and go as they did


@functools.cache
def keep_freed_memory() -> bool:
    """Set it for this process, once; whether the C library has such a setting."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_BYTES)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
