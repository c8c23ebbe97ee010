"""Memory for volumes, used again once a volume is gone: a page that the system gives anew costs more than the voxels in it."""

from __future__ import annotations

import math
import mmap
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST_BYTES = 32 * 2**20  # below, the allocator of the C library keeps what it frees by itself
MOST_KEPT = 2  # blocks of a process that wait for the next volume
_kept: list[mmap.mmap] = []  # only popped from and appended to: either is one step of the interpreter


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array whose values are whatever was there; its memory comes back when the array and all views of it are gone."""
    kind = np.dtype(dtype)
    n_bytes = math.prod(shape) * kind.itemsize
    if n_bytes < LEAST_BYTES:
        return np.empty(shape, kind)
    block = _block(n_bytes)
    flat = np.frombuffer(block, kind, count=math.prod(shape))
    # views keep the flat array alive and not the block, since no array owns the block
    weakref.finalize(flat, _give_back, block).atexit = False
    return flat.reshape(shape)


def _block(n_bytes: int) -> mmap.mmap:
    while _kept:
        try:
            block = _kept.pop()
        except IndexError:  # another thread was faster
            break
        if n_bytes <= len(block) <= 2 * n_bytes:
            return block
    try:
        block = mmap.mmap(-1, n_bytes)
    except OSError:
        raise MemoryError from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _give_back(block: mmap.mmap) -> None:
    if len(_kept) < MOST_KEPT:
        _kept.append(block)
