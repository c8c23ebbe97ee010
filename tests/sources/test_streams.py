"""Every view of bytes reads as the bytes themselves do, whatever is sought and read in whatever order."""

from __future__ import annotations

import io
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.sources.streams import ranged, restarting, window

CONTENT = random.Random(7).randbytes(40_000)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "all", io.SEEK_SET, io.SEEK_CUR, io.SEEK_END]), st.integers(-50_000, 50_000)
    ),
    max_size=12,
)  # fmt: skip


@settings(deadline=None)
@given(steps=STEPS, size=st.integers(0, len(CONTENT)))
def test_views_read_as_the_bytes_do(steps: list[tuple[str | int, int]], size: int) -> None:
    whole = CONTENT[:size]
    views = [
        ranged(size, lambda at, n: whole[at : at + n]),
        window(io.BytesIO(b"before" + CONTENT), start=6, size=size),
        restarting(lambda: io.BytesIO(whole), size=size),
    ]
    for view in views:
        plain = io.BytesIO(whole)
        for step, number in steps:
            if step == "read":
                assert view.read(abs(number)) == plain.read(abs(number))
            elif step == "all":
                assert view.read() == plain.read()
            else:
                assert isinstance(step, int)
                start = {io.SEEK_SET: 0, io.SEEK_CUR: plain.tell(), io.SEEK_END: size}[step]
                to = max(0, start + number)
                assert view.seek(to) == plain.seek(to)
            assert view.tell() == plain.tell()
