"""Coverage-guided fuzzing of the header reader: `python -m tests.fuzz.header_target [libFuzzer options] [corpus folder]`.

Whatever the bytes: one typed outcome, in bounded time and memory, and the same from files read together as from pydicom.
"""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ospor_batch.archive"]):
    from ospor_batch.archive.header import read_header

from ospor_batch.errors import ItemRefused
from tests.archive.both import differences
from tests.archive.mutants import WHOLE

RUNS = ([WHOLE[0]] * 5, [WHOLE[4]] * 5)  # headers that repeat, explicit and implicit: one among them is taken up with them


def one_file(content: bytes) -> None:
    """Hold one file against what must be true of every file."""
    try:
        header = read_header(io.BytesIO(content))
    except ItemRefused as refusal:
        if not refusal.reason.replace("_", "").isalnum():
            raise AssertionError("a refusal without a typed reason") from None
    else:
        assert header.values["sop_instance_uid"]
    if found := differences([content, *RUNS[0], content, WHOLE[0], content, WHOLE[8], *RUNS[1], content, WHOLE[4]]):
        raise AssertionError(f"read together and alone differ in {sorted({column for _, column, _, _ in found})}")


def main() -> None:
    """Start from whole files, unless a corpus folder is given that holds some."""
    logging.disable(logging.CRITICAL)
    folders = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    for folder in folders:
        for number, content in enumerate(WHOLE):
            (folder / f"whole-{number:02d}").write_bytes(content)
    atheris.Setup(sys.argv, one_file)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
