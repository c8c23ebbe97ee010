"""On a CPU series go side by side from file to answer: the same answers, every lane busy, no more held than declared."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ospor_batch.errors import ItemRefused
from ospor_batch.inference import decoders
from ospor_batch.inference.device import Device
from ospor_batch.inference.items import Item, read_items
from ospor_batch.inference.journal import Journal, read_journal
from ospor_batch.inference.lanes import can_share, side_by_side
from ospor_batch.inference.shard import Limits, ShardTask, predict_shard
from ospor_batch.inference.timing import Stopwatch, bottleneck
from ospor_batch.models.spec import Prediction
from tests.inference.cases import SPEC, write_shard, write_spine
from tests.inference.predictors import Failing, register

ITEMS = [Item(f"{i:032x}", "0", "north", (), ()) for i in range(12)]


@dataclass
class Watched:
    """Counts what is held decoded, and who computes at once."""

    seconds: float = 0.01
    refused: frozenset[int] = frozenset()
    is_reentrant: bool = True
    batch_items: int = 1
    held: int = 0
    most_held: int = 0
    most_computing: int = 0
    computing: int = 0
    teams: set[int] = field(default_factory=set)
    n_threads: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, item: Item, _spec: object, *, n_threads: int, turn: AbstractContextManager[object]) -> int:
        del turn
        with self.lock:
            self.held += 1
            self.most_held = max(self.most_held, self.held)
            self.n_threads.add(n_threads)
        if (number := int(item.item_digest, 16)) in self.refused:
            with self.lock:
                self.held -= 1
            raise ItemRefused("image_blank", "nothing")
        return number

    def prepare(self, number: int) -> int:
        return number

    def predict(self, batch: Sequence[int]) -> list[Prediction]:
        torch = pytest.importorskip("torch")
        with self.lock:
            self.computing += 1
            self.most_computing = max(self.most_computing, self.computing)
            self.teams.add(torch.get_num_threads())
        time.sleep(self.seconds * (1 + batch[0] % 3))
        with self.lock:
            self.computing -= 1
            self.held -= 1
        return [Prediction(-float(n), float(n), "HU", (), (), ()) for n in batch]


def answered(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, journal: Path, *, n_lanes: int, items: Sequence[Item] = ITEMS
) -> tuple[list[Any], Stopwatch]:
    spec, watch = register(monkeypatch, watched), Stopwatch()
    monkeypatch.setattr(decoders, "read_pixels", watched.read)
    device = Device(spec, out_of_memory="cpu", watch=watch)
    assert can_share(device) == watched.is_reentrant
    with Journal(journal) as opened:
        found = list(side_by_side(items, device, n_lanes=n_lanes, journal=opened, item_seconds=60, watch=watch))
    return found, watch


def test_every_item_is_answered_in_order_and_no_more_are_held_than_there_are_lanes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    watched = Watched(refused=frozenset({0, 5, 11}))
    found, _ = answered(watched, monkeypatch, tmp_path / "j", n_lanes=3)
    assert [item for item, _ in found] == ITEMS
    for number, (_, answer) in enumerate(found):
        assert isinstance(answer, ItemRefused) if number in watched.refused else answer[0].value == number
    assert watched.most_held == watched.most_computing == 3  # all lanes compute at once, and hold nothing else
    assert watched.teams == {1}  # each with one thread of torch's
    left = read_journal(tmp_path / "j")
    assert left is not None
    assert not left.working


@pytest.mark.parametrize(("n_items", "n_lanes", "expected"), [(1, 4, {4}), (2, 5, {2}), (6, 3, {1})])
def test_lanes_without_a_series_decode_the_files_of_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, n_items: int, n_lanes: int, expected: set[int]
) -> None:
    watched = Watched(seconds=0)
    answered(watched, monkeypatch, tmp_path / "j", n_lanes=n_lanes, items=ITEMS[:n_items])
    assert watched.n_threads == expected


@pytest.mark.parametrize(("is_plain_stack", "expected"), [(True, 1), (False, 3)])
def test_one_lane_at_a_time_reads_many_plain_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_plain_stack: bool, expected: int
) -> None:
    watched = Watched(seconds=0)
    reading, most, lock, read = [0], [0], threading.Lock(), watched.read

    def slow(item: Item, spec: object, *, n_threads: int, turn: AbstractContextManager[object]) -> int:
        with turn:
            with lock:
                reading[0] += 1
                most[0] = max(most[0], reading[0])
            time.sleep(0.02)
            with lock:
                reading[0] -= 1
        return read(item, spec, n_threads=n_threads, turn=turn)

    monkeypatch.setattr(watched, "read", slow)
    items = [replace(item, is_plain_stack=is_plain_stack) for item in ITEMS]
    found, watch = answered(watched, monkeypatch, tmp_path / "j", n_lanes=3, items=items)
    assert [item for item, _ in found] == items
    assert most == [expected]
    assert bottleneck(watch.seconds) == "decode"


@pytest.mark.parametrize(
    ("syntaxes", "expected"),
    [
        (["1.2.840.10008.1.2.1"] * 3, True),
        (["1.2.840.10008.1.2.1"], False),
        (["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"], False),
    ],
)
def test_a_series_of_many_plain_images_is_told_from_others(tmp_path: Path, syntaxes: list[str], expected: bool) -> None:
    write_spine(tmp_path / "archive" / "a", mean_hu=150)
    write_shard(tmp_path / "shard", tmp_path / "archive", ["a"])
    rows = pl.read_parquet(tmp_path / "shard")
    masks, images = rows.filter(kind="mask"), rows.filter(kind="image").head(len(syntaxes))
    pl.concat([masks, images.with_columns(transfer_syntax_uid=pl.Series(syntaxes))]).write_parquet(tmp_path / "shard")
    (item,) = read_items(tmp_path / "shard")
    assert item.is_plain_stack == expected


@pytest.mark.parametrize(("reading", "computing", "slowest"), [(0.05, 0.0, "decode"), (0.0, 0.05, "compute")])
def test_the_slowest_step_is_told_though_all_take_turns_on_the_same_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reading: float, computing: float, slowest: str
) -> None:
    watched = Watched(seconds=computing)
    read = watched.read

    def slow(item: Item, spec: object, *, n_threads: int, turn: AbstractContextManager[object]) -> int:
        time.sleep(reading)
        return read(item, spec, n_threads=n_threads, turn=turn)

    monkeypatch.setattr(watched, "read", slow)
    began = time.perf_counter()
    _, watch = answered(watched, monkeypatch, tmp_path / "j", n_lanes=2, items=ITEMS[:4])
    assert bottleneck(watch.seconds) == slowest
    assert watch.seconds["compute"] + watch.seconds["starved"] < time.perf_counter() - began  # of one device, not of two


def test_lanes_leave_the_parts_that_one_thread_leaves(tmp_path: Path) -> None:
    for name, hu in (("a", 150), ("b", 90), ("c", 120)):
        write_spine(tmp_path / "archive" / name, mean_hu=hu)
    written = []
    for limits in (Limits(), Limits(n_lanes=3)):
        place = tmp_path / str(limits.n_lanes)
        task = ShardTask("one", place / "shards", place / "predictions", SPEC, limits)
        write_shard(task.source, tmp_path / "archive", ["a", "b", "c"])
        assert predict_shard(task).n_predicted == 3
        written.append({path.name: path.read_bytes() for path in sorted(task.store.iterdir())})
    assert written[0] == written[1]


def test_a_predictor_that_does_not_say_that_it_can_is_asked_by_one_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = set[int]()
    spec = register(monkeypatch, Failing(on=lambda _: asked.add(threading.get_ident())))
    for name in "abcdef":
        write_spine(tmp_path / "archive" / name, mean_hu=100)
    task = ShardTask("one", tmp_path / "shards", tmp_path / "predictions", spec, Limits(n_lanes=4))
    write_shard(task.source, tmp_path / "archive", list("abcdef"))
    assert predict_shard(task).n_predicted == 6
    assert asked == {threading.get_ident()}


def test_a_lane_in_which_torch_is_loaded_only_by_a_segmentation_has_no_team_either(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Recipes without a network load torch while they segment, which is after the lanes began."""
    code = """
import sys
from dataclasses import replace
from pathlib import Path
from ospor_batch.inference import decoders
from ospor_batch.inference.items import Item
from ospor_batch.inference.journal import Journal
from tests.inference.cases import SPEC

assert "torch" not in sys.modules
teams = []

def segmented(item, spec, *, n_threads, turn):
    import torch
    teams.append(torch.get_num_threads())
    raise decoders.ItemRefused("mask_missing", "nothing")

decoders.read_pixels = segmented
spec = replace(SPEC, masks=replace(SPEC.masks, source="unet", folder="model"))
with Journal(Path(sys.argv[1])) as journal, decoders.threads(2, spec, journal=journal, item_seconds=60, n_items=2) as submit:
    for future in [submit(Item(str(i), "0", "north", (), ())) for i in range(4)]:
        future.exception()
print(set(teams))
"""
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "j")], capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "4"}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert said.stdout.strip() == "{1}"


def test_a_network_answers_the_same_beside_others(tmp_path: Path) -> None:
    """Bits of a network do not depend on what else is computed, nor on threads of the process that asks."""
    torch = pytest.importorskip("torch")
    from ospor_batch.models.forward import Forward
    from ospor_batch.models.networks import network_of

    torch.manual_seed(3)
    parameters = {"network": "densenet_small", "width": 8, "dropout": 0.0}
    made = network_of(parameters, n_channels=1, n_outputs=1)
    forward, images = Forward(made, device="cpu"), torch.rand(12, 1, 1, 48, 48)
    before, alone = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        alone = [forward(image).tobytes() for image in images]
    finally:
        torch.set_num_threads(before)
    with decoders.pool_of_single_threads(3, SPEC, name="test") as pool:
        assert list(pool.map(lambda image: forward(image).tobytes(), images)) == alone
    assert torch.get_num_threads() == before
