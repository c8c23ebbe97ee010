"""Series read, decoded, prepared and predicted a second: python benchmarks/inference.py [--images N] [--device cuda]

Against the same network fed from memory (the limit: one thread in as many processes as compute), a plain loop over PyTorch's
DataLoader with pydicom, and MONAI's own pipeline. The same files, network and weights. The engine has the limits of a run by
default, so that one worker uses all cores; held to one core, it shows what a second one adds. On a GPU all rows compute in
batches there, all cores decode, in the loops as processes, and the limit copies its images from the memory of the host.
Start-up of processes and the first batch are outside of every time. A rate is only as good as the machine is quiet; the CPU
seconds that a series takes, over all processes of a row, bear other work beside it: cores / seconds is the rate that a row
can reach.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import psutil
import pydicom
import torch
from distributed import WorkerPlugin
from inference_files import JPEG_2000, PLAIN, write_radiographs, write_shards, write_volumes
from monai.data import DataLoader as MonaiLoader
from monai.data import Dataset as MonaiDataset
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, NormalizeIntensity, Resize
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from torch.utils.data import DataLoader, Dataset

from ospor_batch.compute.cluster import open_executor
from ospor_batch.compute.executor import DaskExecutor
from ospor_batch.config import Compute
from ospor_batch.inference.items import Item, read_pixels
from ospor_batch.inference.shard import Limits, ShardTask, predict_shard
from ospor_batch.inference.timing import STEPS, bottleneck, summed
from ospor_batch.models import cxr_osteoporosis, registry
from ospor_batch.models.forward import Forward
from ospor_batch.models.registry import Kind, predictor_here, spec_of
from ospor_batch.models.spec import COARSE, Pixels, Prediction, PredictorSpec
from ospor_batch.models.trainable import IMAGE, Preparing
from ospor_batch.stages.infer import limits_of

PARAMETERS = {**cxr_osteoporosis.DEFAULTS, "refuse_lateral": False}
# Of the engine alone, and inherited by its workers: the precision of its network, and the pixels that a side of a JPEG 2000
# image keeps at least when it is decoded at a part of its resolution (0: decoded whole)
PRECISION = os.environ.get("OSPOR_BENCH_PRECISION", "float32")
LEAST_PIXELS = int(os.environ.get("OSPOR_BENCH_LEAST_PIXELS", "0"))
N_CORES = os.cpu_count() or 1
MEMORY_SECONDS = 5.0
BATCHES = {"cpu": 1, "cuda": 16}  # on a CPU as trained predictors have it there, so that no neighbour changes an answer


def network(name: str, pixels: int) -> torch.nn.Module:
    from ospor_batch.models.networks import network_of

    torch.manual_seed(1)
    made = network_of({**PARAMETERS, "network": name, "image_pixels": pixels}, n_channels=1, n_outputs=1)
    return made.eval().to(memory_format=torch.channels_last)


class Bench:
    """A predictor with random weights: radiographs as the chest recipe prepares them, CT as its middle sagittal image."""

    is_reentrant = True

    def __init__(self, spec: PredictorSpec) -> None:
        _, name, pixels = spec.predictor.split("-")
        torch.set_num_threads(1)
        self.batch_items = BATCHES[spec.device]
        self.forward, self.pixels = Forward(network(name, int(pixels)), device=spec.device, precision=PRECISION), int(pixels)

    def prepare(self, pixels: Pixels) -> torch.Tensor:
        if pixels.radiograph is not None:
            parameters = {**PARAMETERS, "image_pixels": self.pixels}
            array = cxr_osteoporosis.prepare(pixels, Preparing(parameters, None)).arrays[IMAGE]  # type: ignore[arg-type]
            return torch.from_numpy(array[0])
        assert pixels.volume is not None
        return sagittal(torch.from_numpy(pixels.volume.hu), self.pixels)

    def to_device(self, batch: list[torch.Tensor]) -> list[torch.Tensor]:
        return self.forward.to_device([image[None] for image in batch])

    def predict(self, batch: list[torch.Tensor]) -> list[Prediction]:
        found = self.forward(batch[0] if len(batch) == 1 else torch.cat(batch))
        return [Prediction(float(value), float(value), "t_score", (), (), ()) for value in found[:, 0]]


def sagittal(volume: torch.Tensor, pixels: int) -> torch.Tensor:
    middle = volume[:, :, volume.shape[2] // 2].float()[None, None]
    made = torch.nn.functional.interpolate(middle, size=(pixels, pixels), mode="bilinear", align_corners=False)
    return made[0].clamp(-200, 1000) / 600


def kinds() -> dict[str, Kind]:
    return {
        f"{reads}-{name}-{pixels}": Kind(
            Bench, version="1", defaults={COARSE: 0}, wants_gpu=False, reads_masks=False, reads=reads
        )
        for reads in ("radiograph", "ct")
        for name, pixels in (("resnet18", 224), ("densenet121", 512))
    }


registry.PREDICTORS.update(kinds())  # decoder processes import this file by its name


class Register(WorkerPlugin):  # type: ignore[misc]
    name = "bench"

    def setup(self, worker: Any) -> None:  # noqa: ARG002
        registry.PREDICTORS.update(kinds())


# ---- what is measured ----


def burnt() -> float:
    """Seconds of CPU of this process and all below it, those that ended too."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    ended = own.cpu_times()
    return sum(t.user + t.system for t in times) + ended.children_user + ended.children_system


def from_memory(spec: PredictorSpec, series: list[list[Path]]) -> tuple[float, float]:
    """Items a second of the network alone on inputs that were prepared before, and the seconds of CPU that one takes."""
    predictor = predictor_here(spec)
    items = [Item(str(i), str(i), "one", tuple(paths), ()) for i, paths in enumerate(series[:4])]
    prepared = [predictor.prepare(read_pixels(item, spec)) for item in items]
    batch = [prepared[i % len(prepared)] for i in range(BATCHES[spec.device])]
    predictor.predict(predictor.to_device(batch))
    n, began, before = 0, time.perf_counter(), time.thread_time()
    while time.perf_counter() - began < MEMORY_SECONDS:
        predictor.predict(predictor.to_device(batch))
        n += len(batch)
    return n / (time.perf_counter() - began), (time.thread_time() - before) / n


def keep_to_one_core() -> None:
    """Let every thread of this process, and those that they begin, run on its first core alone."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {min(os.sched_getaffinity(0))})


def engine(
    spec: PredictorSpec, series: list[list[Path]], folder: Path, *, n_workers: int, n_processes: int, is_one_core: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """A row of shards on worker processes, parts written, beside the networks alone in them; where the seconds went."""
    folder.mkdir(parents=True)
    shards = write_shards(folder, series[n_workers:], 2 * n_workers)
    (folder / "warm").mkdir()
    warm = write_shards(folder / "warm", series[:n_workers], n_workers)
    settings = Compute(cluster="local", workers=n_workers, decode_processes=n_processes or None)
    n_sharing = N_CORES if is_one_core else n_workers  # of the machine's cores
    limits = limits_of(settings, n_workers=n_sharing, is_gpu=spec.device == "cuda", is_expendable=True)
    with open_executor(settings) as executor:
        assert isinstance(executor, DaskExecutor)
        client = executor.client
        client.register_plugin(Register())
        if is_one_core:
            client.run(keep_to_one_core)
        # every worker loads the network before the clock starts
        tasks = [ShardTask(name, folder / "warm", folder / "store_warm", spec, limits) for name in warm]
        workers = list(client.scheduler_info()["workers"])
        client.gather([client.submit(predict_shard, t, workers=[w]) for t, w in zip(tasks, workers, strict=True)])
        of_memory = list(client.run(from_memory, spec, series).values())
        tasks = [ShardTask(name, folder, folder / "store", spec, limits) for name in shards]
        began, before = time.perf_counter(), time.process_time() + sum(client.run(burnt).values())
        receipts = [outcome.value for outcome in executor.map(predict_shard, tasks)]
        took = time.perf_counter() - began
        used = time.process_time() + sum(client.run(burnt).values()) - before
    assert all(receipt is not None and receipt.n_rejected == 0 for receipt in receipts), receipts
    n_done = sum(receipt.n_items for receipt in receipts if receipt is not None)
    rates = {"rate": n_done / took, "cpu": used / n_done, "limit": sum(rate for rate, _ in of_memory)}
    return rates, summed(receipt.seconds for receipt in receipts if receipt is not None)


class Radiographs(Dataset):  # type: ignore[type-arg]
    """What is usually written: pydicom, its look-up tables, a resize, a normalisation."""

    def __init__(self, series: list[list[Path]], pixels: int) -> None:
        self.series, self.pixels = series, pixels

    def __len__(self) -> int:
        return len(self.series)

    def __getitem__(self, index: int) -> torch.Tensor:
        ds = pydicom.dcmread(self.series[index][0])
        array = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds).astype(np.float32)
        image = torch.nn.functional.interpolate(
            torch.from_numpy(array)[None, None], size=(self.pixels, self.pixels), mode="bilinear", antialias=True
        )[0]
        return (image - image.mean()) / image.std()


class SameReader(Radiographs):
    """The engine's own reader and preparation in PyTorch's loop: what is left is the engine against the loop."""

    def __init__(self, series: list[list[Path]], spec: PredictorSpec) -> None:
        super().__init__(series, 0)
        self.spec = spec

    def __getitem__(self, index: int) -> torch.Tensor:
        item = Item(str(index), str(index), "one", tuple(self.series[index]), ())
        made: torch.Tensor = predictor_here(self.spec).prepare(read_pixels(item, self.spec))
        return made.float()


class Volumes(Radiographs):
    def __getitem__(self, index: int) -> torch.Tensor:
        slices = [pydicom.dcmread(path) for path in self.series[index]]
        slices.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
        hu = [ds.pixel_array.astype(np.float32) * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices]
        return sagittal(torch.from_numpy(np.stack(hu)), self.pixels)


def one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def looped(batches: Callable[[], Iterator[torch.Tensor]], model: torch.nn.Module, n: int) -> dict[str, float]:
    """Items a second after the first batch, and the seconds of CPU that one takes with the first."""
    before, device = burnt(), next(model.parameters()).device

    def answered(batch: Any) -> int:
        images = torch.as_tensor(batch).to(device, memory_format=torch.channels_last, non_blocking=True)
        return len(model(images).cpu())

    with torch.inference_mode():
        found = iter(batches())
        n_before = answered(next(found))
        began = time.perf_counter()
        for batch in found:
            answered(batch)
        took = time.perf_counter() - began
    del found
    return {"rate": (n - n_before) / took, "cpu": (burnt() - before) / n}


def loading(device: str, n_workers: int) -> dict[str, Any]:
    """What a DataLoader is given."""
    more = {"pin_memory": True} if device == "cuda" else {}
    return {"batch_size": BATCHES[device], "num_workers": n_workers, "worker_init_fn": one_thread, **more}


def plain_loop(dataset: Radiographs, model: torch.nn.Module, *, device: str, n_workers: int) -> dict[str, float]:
    loader = DataLoader(dataset, **loading(device, n_workers))
    return looped(lambda: iter(loader), model, len(dataset))


def monai_loop(
    series: list[list[Path]], pixels: int, model: torch.nn.Module, *, is_ct: bool, device: str, n_workers: int
) -> dict[str, float]:
    load = LoadImage(reader="PydicomReader", image_only=True, ensure_channel_first=False)
    steps: list[Any] = [load, EnsureChannelFirst(channel_dim="no_channel")]
    if is_ct:
        steps.append(lambda volume: sagittal(torch.as_tensor(volume[0]).permute(2, 1, 0), pixels))
    else:
        steps += [lambda image: image[..., 0] if image.ndim == 4 else image, Resize((pixels, pixels)), NormalizeIntensity()]
    paths = [str(paths[0].parent if is_ct else paths[0]) for paths in series]
    loader = MonaiLoader(MonaiDataset(paths, Compose(steps)), **loading(device, n_workers))
    return looped(lambda: (torch.as_tensor(batch) for batch in loader), model, len(series))


def computing_share(spec: PredictorSpec, series: list[list[Path]], folder: Path) -> float:
    """Share of the wall time of a shard in which torch ran an operation in the computing thread, or one on a GPU."""
    folder.mkdir(parents=True)
    (shard,) = write_shards(folder, series, 1)
    is_gpu, activity = spec.device == "cuda", torch.profiler.ProfilerActivity
    limits = limits_of(Compute(cluster="local"), n_workers=1, is_gpu=True, is_expendable=False) if is_gpu else Limits()
    task = ShardTask(shard, folder, folder / "store", spec, limits)
    with torch.profiler.profile(activities=[activity.CPU, *[activity.CUDA] * is_gpu]) as profile:
        began = time.perf_counter()
        receipt = predict_shard(task)
        took = time.perf_counter() - began
    events = profile.key_averages()
    # a network in oneDNN's order calls the second (models/packed.py)
    assert {event.key for event in events} & {"aten::conv2d", "mkldnn::_convolution_pointwise"}
    del receipt
    return sum(event.self_device_time_total if is_gpu else event.self_cpu_time_total for event in events) / 1e6 / took


def measure(
    case: str, series: list[list[Path]], *, net: str, pixels: int, is_ct: bool, folder: Path, rows: str, device: str
) -> Iterator[dict[str, Any]]:
    """The rows of one case as they are found; a rate, and the limit that it is held against."""
    spec = spec_of(
        f"{'ct' if is_ct else 'radiograph'}-{net}-{pixels}", parameters={COARSE: LEAST_PIXELS}, pattern="*", labels={},
        device=device,
    )  # fmt: skip
    torch.set_num_threads(1)
    model = network(net, pixels).to(device)
    dataset = (Volumes if is_ct else Radiographs)(series, pixels)
    limit, cpu = from_memory(spec, series)

    def row(what: str, **more: Any) -> dict[str, Any]:
        return {"case": case, "network": f"{net} {pixels}", "what": what, "limit": limit, "cpu_of_network": cpu, **more}

    yield row("network alone, fed from memory", rate=limit, cpu=cpu)
    n_loading = (0, 1, 2) if device == "cpu" else (N_CORES,)
    shapes = [(1, 0, True), (1, 0, False), (1, n_loading[0] or 1, False), (2, 0, False)]
    for n_workers, n_processes, is_one_core in shapes if device == "cpu" else shapes[1:]:
        more = " of one core" if is_one_core else f", {n_processes} decoder process(es)" if n_processes else ""
        what = f"ospor_batch, {n_workers} worker(s){more}"
        if rows in what:
            place = folder / f"{n_workers}-{n_processes}-{is_one_core}"
            found, seconds = engine(spec, series, place, n_workers=n_workers, n_processes=n_processes, is_one_core=is_one_core)
            yield row(what, seconds=seconds, slowest=bottleneck(seconds)) | found
    peers: list[tuple[str, Callable[[], dict[str, float]]]] = [
        (f"DataLoader + pydicom, {n} loading process(es)", partial(plain_loop, dataset, model, device=device, n_workers=n))
        for n in n_loading
    ]
    n_beside = n_loading[len(n_loading) // 2]
    like_ours: Any = {"device": device, "n_workers": n_beside}
    said = f"{n_beside} loading process(es)"
    same = SameReader(series, replace(spec, device="cpu"))
    peers.append((f"DataLoader + the same reader, {said}", partial(plain_loop, same, model, **like_ours)))
    peers.append((f"MONAI pipeline, {said}", partial(monai_loop, series, pixels, model, is_ct=is_ct, **like_ours)))
    for what, rate_of in peers:
        if rows in what:
            yield row(what, **rate_of())
    what = "share of time computing (torch profiler)"
    if rows in what:
        some = series[: 8 * BATCHES[device]]
        yield row(what, share=computing_share(spec, some, folder / "p"))


def show(row: dict[str, Any]) -> None:
    if "share" in row:
        said = f"{row['share']:8.2f}"
    else:
        rate, of_limit = row["rate"], row["rate"] / row["limit"]
        share = row["cpu_of_network"] / row["cpu"]
        said = f"{rate:8.2f}/s {of_limit:5.2f} of limit; CPU {row['cpu']:.3f} s, of which the network {share:.2f}"
    if "seconds" in row:
        steps = ", ".join(f"{step} {row['seconds'][step]:.2f}" for step in STEPS)
        said += f"; limit {row['limit']:.2f}/s; {steps}; slowest: {row['slowest']}"
    print(f"{row['case']:28} {row['network']:16} {row['what']:46} {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--volumes", type=int, default=8)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--only", default="", help="Cases whose name and network hold this text.")
    parser.add_argument("--rows", default="", help="Rows whose name holds this text.")
    parser.add_argument("--device", choices=sorted(BATCHES), default="cpu")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cloudpickle.register_pickle_by_value(__import__("__main__"))
    warnings.simplefilter("ignore")
    radiographs = partial(write_radiographs, n=given.images)
    cases: list[tuple[str, str, int, Callable[[Path], list[list[Path]]]]] = [
        ("radiograph, not compressed", "resnet18", 224, partial(radiographs, syntax=PLAIN)),
        ("radiograph, JPEG 2000", "resnet18", 224, partial(radiographs, syntax=JPEG_2000)),
        ("radiograph, not compressed", "densenet121", 512, partial(radiographs, syntax=PLAIN)),
        ("radiograph, JPEG 2000", "densenet121", 512, partial(radiographs, syntax=JPEG_2000)),
        (f"CT of {given.slices} slices", "resnet18", 224, partial(write_volumes, n=given.volumes, n_slices=given.slices)),
    ]
    rows = []
    with tempfile.TemporaryDirectory() as made:
        for number, (case, net, pixels, files) in enumerate(cases):
            if given.only in f"{case} {net}":
                series, place = files(Path(made) / f"files{number}"), Path(made) / str(number)
                is_ct = case.startswith("CT")
                asked = {"is_ct": is_ct, "rows": given.rows, "device": given.device}
                for row in measure(case, series, net=net, pixels=pixels, folder=place, **asked):
                    show(row)
                    rows.append(row)
                    if given.json:  # row by row, since a session on a GPU may end in between
                        given.json.write_text(json.dumps({"rows": rows, "device": given.device, "cores": N_CORES}, indent=1))
                shutil.rmtree(Path(made) / f"files{number}")


if __name__ == "__main__":
    main()
