"""How far two ways of predicting the same series lie apart: what precision.py, precision_study.py and coarse.py print."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Pair = tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.floating[Any]]]


def compared(values: Pair, scores: Pair, *, locked: float | None) -> dict[str, Any]:
    """Differences of values, and decisions of scores at the model's locked threshold; at the first's median without one."""
    threshold = float(np.median(scores[0]) if locked is None else locked)
    stays = (scores[0] >= threshold) == (scores[1] >= threshold)
    moved = np.abs(values[0] - values[1])
    return {
        "n": len(moved), "threshold": threshold, "largest": float(moved.max()), "median": float(np.median(moved)),
        "spread": float(values[0].std()), "agree": float(stays.mean()), "n_moved": int((~stays).sum()),
        # how near the cut those lie whose decision moved: of the first's scores
        "farthest_of_moved": float(np.abs(scores[0] - threshold)[~stays].max(initial=0.0)),
    }  # fmt: skip


def in_words(row: dict[str, Any]) -> str:
    """One row in words."""
    return (
        f"n {row['n']:4}; largest difference {row['largest']:.2g}, median {row['median']:.2g} (SD over series "
        f"{row['spread']:.2g}); decisions that stay {row['agree']:.4f}"
    )
