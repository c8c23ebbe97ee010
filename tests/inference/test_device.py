"""Out of memory a batch is halved; what does not fit alone goes to the CPU or is refused, by policy."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ospor_batch.errors import ItemRefused, StudyError
from ospor_batch.inference.device import Device, DeviceLostError, OutOfMemory
from ospor_batch.inference.timing import Stopwatch, bottleneck, summed
from ospor_batch.models.spec import PredictorSpec
from tests.inference.predictors import Failing, register

torch = pytest.importorskip("torch")


def device(spec: PredictorSpec, policy: OutOfMemory = "reject") -> Device:
    return Device(spec, out_of_memory=policy, watch=Stopwatch())


def values(answers: list[Any]) -> list[Any]:
    return [answer.reason if isinstance(answer, ItemRefused) else (answer[0].value, answer[1]) for answer in answers]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_a_batch_that_does_not_fit_is_halved_and_stays_halved(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def more_than_two(batch: list[float]) -> None:
        if len(batch) > 2:
            raise error

    predictor = Failing(more_than_two, batch_items=8)
    on = device(register(monkeypatch, predictor))
    assert values(on.predict([float(n) for n in range(8)])) == [(float(n), "cpu") for n in range(8)]
    assert predictor.batches == [8, 4, 2, 2, 2, 2]
    assert on.batch_items == 2
    on.predict([1.0, 2.0])
    assert predictor.batches[-1] == 2


def test_one_that_does_not_fit_alone_is_refused_and_its_neighbours_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def large(batch: list[float]) -> None:
        if 3.0 in batch:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    on = device(register(monkeypatch, Failing(large)), "cpu")  # it is on the CPU already
    found = on.predict([1.0, 2.0, 3.0, 4.0])
    assert values(found) == [(1.0, "cpu"), (2.0, "cpu"), "out_of_memory", (4.0, "cpu")]
    assert found[2].is_transient  # type: ignore[union-attr]


@pytest.mark.parametrize(("policy", "expected"), [("cpu", (3.0, "cpu")), ("reject", "out_of_memory")])
def test_by_policy_it_goes_to_the_cpu(monkeypatch: pytest.MonkeyPatch, policy: OutOfMemory, expected: Any) -> None:
    monkeypatch.setattr("ospor_batch.inference.device._has_cuda", lambda: True)

    def build(spec: PredictorSpec) -> Failing:
        def on_cuda(batch: list[float]) -> None:
            if spec.device == "cuda" and 3.0 in batch:
                raise torch.OutOfMemoryError

        return Failing(on_cuda, device=spec.device)

    spec = dataclasses.replace(register(monkeypatch, build), device="cuda")
    assert values(device(spec, policy).predict([1.0, 3.0])) == [(1.0, "cuda"), expected]


def test_a_series_on_which_the_predictor_fails_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(batch: list[float]) -> None:
        if 2.0 in batch:
            raise ValueError("Kim^Minji")

    found = device(register(monkeypatch, Failing(odd))).predict([1.0, 2.0, 3.0])
    assert values(found) == [(1.0, "cpu"), "predictor_failed", (3.0, "cpu")]
    assert isinstance(found[1], ItemRefused)
    assert "ValueError" in found[1].detail
    assert "Kim" not in found[1].detail


def test_a_broken_cuda_context_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(batch: list[float]) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(DeviceLostError):
        device(register(monkeypatch, Failing(broken))).predict([1.0, 2.0])


def test_a_gpu_that_workers_do_not_see_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ospor_batch.inference.device._has_cuda", lambda: False)
    with pytest.raises(StudyError, match="torch sees no GPU"):
        device(dataclasses.replace(register(monkeypatch, Failing()), device="cuda"))


def test_the_slowest_step_is_named() -> None:
    none = summed([])
    assert bottleneck({**none, "read": 5, "decode": 9, "starved": 6, "compute": 2}) == "decode"
    assert bottleneck({**none, "read": 10, "decode": 9, "starved": 6, "compute": 2}) == "read"
    assert bottleneck({**none, "decode": 9, "starved": 1, "compute": 6}) == "compute"
    assert bottleneck({**none, "write": 9, "starved": 1, "compute": 6}) == "write"
    assert summed([{"read": 1.0}, {"read": 2.0, "write": 1.0}])["read"] == 3.0
