"""What is seen while a crawl runs: counts of files as they are known, and a total only when the last folder is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ospor_batch import screen
from ospor_batch.plan import Step
from ospor_batch.stages import crawl as stage
from ospor_batch.stages import crawl_progress
from tests.archive.made import ct, write, write_series

from .test_crawl import Center


@pytest.fixture
def center(tmp_path: Path, key: bytes, monkeypatch: pytest.MonkeyPatch) -> Center:
    monkeypatch.setattr(stage, "PART_FILES", 4)
    monkeypatch.setattr(crawl_progress, "SECONDS", 0.0)
    return Center(tmp_path, key)


class Bar:
    """A progress bar that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, str]] = []
        self.words = ""

    def __call__(self, done: int, total: int) -> None:
        self.told.append((done, total, self.words))

    def note(self, text: str) -> None:
        self.words = text


def test_a_first_crawl_has_no_total_until_the_last_folder_is_listed(center: Center) -> None:
    for number in range(1, 7):
        write_series(center.archive / f"f{number}", n=5, series=number)
    bar = Bar()
    center.crawl(progress=bar)
    is_known = [total > 0 for _, total, _ in bar.told]
    assert is_known == sorted(is_known)
    assert {total for _, total, _ in bar.told} == {0, 30}
    read_meanwhile = [(done, words) for done, total, words in bar.told if total == 0 and done]
    assert read_meanwhile
    for done, words in read_meanwhile:
        found = re.fullmatch(r"(\d+) files found(, [1-5] folders left to list)?", words)
        assert found is not None
        assert done <= int(found[1]) < 30 or found[2] is None
    assert bar.told[-1] == (30, 30, "all read; writing the catalog")


def test_a_later_crawl_says_what_it_compares_and_counts_what_it_must_read(center: Center) -> None:
    write_series(center.archive / "f1", n=5, series=1)
    center.crawl()
    write(ct(series=2), center.archive / "f2" / "new.dcm")
    write(ct(series=1, slice_=0, SeriesDescription="told anew"), center.archive / "f1" / "s1-000.dcm")
    bar = Bar()
    center.crawl(progress=bar)
    assert (0, 0, "comparing with the catalog") in bar.told
    assert {total for _, total, _ in bar.told} == {0, 2}
    assert bar.told[-1][:2] == (2, 2)
    quiet = Bar()
    center.crawl(progress=quiet)
    assert {told[:2] for told in quiet.told} == {(0, 0)}


def test_where_no_total_is_known_none_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "LINE_SECONDS", 0.0)
    told = screen.Screen(quiet=False).begin(Step("crawl", "north"))
    told(0, 0)
    told.note("12 files found")  # type: ignore[attr-defined]
    told(8, 0)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "crawl north: 0, 0.0/s"
    assert re.fullmatch(r"crawl north: 8, \d+/s 12 files found", second)
