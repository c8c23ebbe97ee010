"""What only a GPU can show: out of memory for real, a killed CUDA worker, two processes on one device, bf16 beside fp32.

Needs torch, NumPy and pyarrow only, so that it runs where the rest of the project cannot be installed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.gpu.on_device import device_name, write_down

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.gpu
WIDTH, SIDE = 32, 128


def device() -> Any:
    return torch.device(device_name())


def network() -> Any:
    torch.manual_seed(1)
    layers: list[Any] = []
    for before, after in ((1, WIDTH), (WIDTH, WIDTH), (WIDTH, 2 * WIDTH)):
        layers += [torch.nn.Conv2d(before, after, 3, padding=1, stride=2), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(2 * WIDTH, 1)).eval()


def images(n: int) -> Any:
    return torch.randn(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


def scores(on: Any, *, dtype: Any = torch.float32, batch: int = 8) -> np.ndarray:
    model, found = network().to(on).to(memory_format=torch.channels_last), []
    with torch.inference_mode(), torch.autocast(on.type, dtype=dtype, enabled=dtype is not torch.float32):
        for part in images(32).split(batch):
            found.append(model(part.to(on, memory_format=torch.channels_last)).float().cpu().numpy()[:, 0])
    return np.concatenate(found)


def test_scores_of_gpu_and_cpu_agree_and_so_do_decisions() -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    cpu, gpu = scores(torch.device("cpu")), scores(device())
    assert np.abs(cpu - gpu).max() < 1e-4
    threshold = np.median(cpu)
    apart = np.abs(cpu - threshold) > 1e-4
    assert ((cpu > threshold) == (gpu > threshold))[apart].all()


def test_half_precision_differs_by_a_measured_amount() -> None:
    full, half = scores(device()), scores(device(), dtype=torch.bfloat16)
    write_down("bfloat16 against float32", most=float(np.abs(full - half).max()), spread=float(full.std()))
    assert np.corrcoef(full, half)[0, 1] > 0.99


def test_a_neighbour_changes_no_score_beyond_rounding() -> None:
    assert np.abs(scores(device(), batch=8) - scores(device(), batch=1)).max() < 1e-4


class Greedy:
    """Takes a large piece of the device for every item, so that a batch of some size cannot fit."""

    def __init__(self, share: float) -> None:
        free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 8 << 20
        self.each = int(free * share)
        self.batch_items = 8
        self.batches: list[int] = []

    def prepare(self, pixels: Any) -> Any:
        return pixels

    def predict(self, batch: Sequence[float]) -> list[Any]:
        from ospor_batch.models.spec import Prediction

        self.batches.append(len(batch))
        if not torch.cuda.is_available() and len(batch) > 3:
            raise torch.OutOfMemoryError  # the dry run
        held = torch.empty(len(batch) * self.each, dtype=torch.uint8, device=device())
        held[::4096] = 1
        return [Prediction(value, value, "HU", (), (), ()) for value in batch]


def test_out_of_memory_for_real_halves_the_batch_and_the_device_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pydicom", "nibabel", "yaml", "pyarrow"):
        pytest.importorskip(name, reason="the engine reads images")
    from ospor_batch.inference.device import Device
    from ospor_batch.inference.timing import Stopwatch
    from tests.inference.predictors import register

    greedy = Greedy(0.3)
    on = Device(register(monkeypatch, greedy), out_of_memory="reject", watch=Stopwatch())
    answers = on.predict([float(n) for n in range(8)])
    assert [answer[0].value for answer in answers] == [float(n) for n in range(8)]
    assert greedy.batches == [8, 4, 2, 2, 2, 2]
    assert on.predict([1.0])[0][0].value == 1.0


SCORING = "import sys; from tests.gpu.test_engine import device, scores; print(*scores(device()).tolist())"
ENDLESS = "from tests.gpu.test_engine import device, scores\nwhile True:\n    scores(device()); print('scored', flush=True)"


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_on_one_device_give_the_same_scores() -> None:
    both = [start(SCORING) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert all(process.returncode == 0 for process in both)
    assert said[0] == said[1]
    assert np.abs(np.array(said[0].split(), float) - scores(device())).max() < 1e-6


def test_a_process_killed_on_the_device_leaves_it_usable() -> None:
    before = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    victim = start(ENDLESS)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "scored\n"
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=60)
    assert len(scores(device())) == 32
    if before:
        assert torch.cuda.mem_get_info()[0] > 0.9 * before
