"""Fit a network on prepared examples: seeds, early stopping on tuning, a checkpoint an epoch, no pickle.

Everything random in an epoch follows from (seed, epoch), so that a training that was killed goes on from its last
checkpoint to the very weights that an undisturbed one reaches; on a CPU byte for byte, on CUDA within rounding.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ospor_batch.errors import StudyError
from ospor_batch.models.checkpoint import open_checkpoint, restore_optimizer, save_checkpoint
from ospor_batch.models.forward import Forward, NetworkAnswers, has_bfloat16, in_units
from ospor_batch.models.trainable import (
    IMAGE,
    PRECISIONS,
    Array,
    Case,
    Fitted,
    NetworkLearner,
    Parameters,
    Target,
    TrainingSet,
    Work,
)

CHECKPOINT = "checkpoint.safetensors"
MEAN, SPREAD = "target.mean", "target.spread"  # of value targets in training; 0 and 1 for binary ones
NETWORK = "network."
STEADY = 1e-6  # a value target without spread is a constant


def fit_network(learner: NetworkLearner, data: TrainingSet, *, work: Work) -> Fitted:
    """Fit the learner's network; the state of the epoch that was best on tuning, or the last without tuning people."""
    if work.device == "cpu" and work.parameters.get("mixed_precision_on_cpu") and not has_bfloat16():
        raise StudyError("recipes.parameters.mixed_precision_on_cpu is true, but this CPU does not compute in bfloat16")
    with _steady(work):
        torch.manual_seed(work.seed)
        run = _Run(learner, data, work)
        run.resume()
        while run.goes_on:
            run.epoch()
            run.save()
        return run.fitted()


def opened_network(
    learner: NetworkLearner, state: Mapping[str, Array], *, parameters: Parameters, targets: tuple[Target, ...], device: str
) -> NetworkAnswers:
    """The learner's network with its weights, from examples to answers."""
    network, mean, spread = loaded_network(learner, state, parameters=parameters, device=device)
    forward = Forward(network, device=device, precision=str(parameters.get("precision", PRECISIONS[0])))
    return NetworkAnswers(learner, forward, parameters, targets, mean, spread)


def loaded_network(
    learner: NetworkLearner, state: Mapping[str, Array], *, parameters: Parameters, device: str
) -> tuple[nn.Module, Array, Array]:
    """The network with its weights in evaluation mode, and mean and spread of its targets."""
    network = learner.network(parameters)
    weights = {
        name.removeprefix(NETWORK): torch.from_numpy(np.array(v)) for name, v in state.items() if name.startswith(NETWORK)
    }
    network.load_state_dict(weights)
    return network.to(device).eval(), np.asarray(state[MEAN], float), np.asarray(state[SPREAD], float)


@dataclass
class _Run:
    """One training under way."""

    learner: NetworkLearner
    data: TrainingSet
    work: Work
    history: list[dict[str, float | None]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_epoch: int = -1
    best_score: float = -math.inf

    def __post_init__(self) -> None:
        p = self.work.parameters
        self.network = self.learner.network(p).to(self.work.device)
        # oneDNN and cuDNN learn flat images faster with their channels last in memory, up to twice
        is_flat = any(isinstance(layer, nn.Conv2d) for layer in self.network.modules())
        self.layout = torch.channels_last if is_flat else torch.contiguous_format
        self.network = self.network.to(memory_format=self.layout)
        decay = float(str(p.get("weight_average", 0.0)))
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=float(str(p["learning_rate"])), weight_decay=float(str(p["weight_decay"]))
        )
        self.mean, self.spread = _scale(self.data.train, self.work.targets)
        self.rows = [(case, unit) for case in self.data.train for unit in range(len(self._units(case)))]
        self.weight = _balance(self.data.train, self.work)

    def _units(self, case: Case) -> tuple[str, ...]:
        return self.data.example(case.item_digest, True).units  # noqa: FBT003

    @property
    def judged(self) -> nn.Module:
        """The network that tuning people see and that is kept: with the moving mean of the weights, or the last."""
        return self.network if self.average is None else self.average.module

    @property
    def _average_state(self) -> dict[str, torch.Tensor]:
        return {} if self.average is None else self.average.state_dict()

    @property
    def n_epochs(self) -> int:
        return int(str(self.work.parameters["epochs"]))

    @property
    def goes_on(self) -> bool:
        since = len(self.history) - 1 - self.best_epoch
        is_stale = (
            bool(self.data.tuning) and self.best_epoch >= 0 and since >= int(str(self.work.parameters["patience_epochs"]))
        )
        return len(self.history) < self.n_epochs and not is_stale

    def epoch(self) -> None:
        """One pass over the training units in an order of its own, then a look at the tuning people."""
        number, device = len(self.history), self.work.device
        seed = _seed(self.work.seed, number)
        torch.manual_seed(seed)  # dropout
        generator = torch.Generator().manual_seed(seed)
        self._set_rate(number)
        self.network.train()
        total, n = 0.0, 0
        for images, targets in self._batches(torch.randperm(len(self.rows), generator=generator).tolist()):
            changed = images.to(device)
            if self.learner.augment is not None:
                changed = self.learner.augment(changed, self.work.parameters, generator)
            self.optimizer.zero_grad(set_to_none=True)
            with _precision(self.work):
                outputs = self.network(changed.contiguous(memory_format=self.layout))
            loss = self._loss(outputs.float(), targets.to(device), is_learning=True)
            loss.backward()
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.network)
            total, n = total + float(loss.detach()) * len(images), n + len(images)
        if not math.isfinite(total):
            raise StudyError(
                f"training left the finite numbers in epoch {number + 1}: lower recipes.parameters.learning_rate "
                f"(now {self.work.parameters['learning_rate']})"
            )
        self._take_statistics(generator)
        self._look(train_loss=total / n)

    def _take_statistics(self, generator: torch.Generator) -> None:
        """Take the statistics of batch normalisation from training images as they are.

        Those gathered in the epoch are of augmented images, whose turned and shifted edges read otherwise than any image
        that is read later: a density came out 7 mg/cm3 too high by it (Wu and Johnson 2021, arXiv 2105.07576, section 3).
        """
        n = int(str(self.work.parameters["statistics_units"]))
        layers = [layer for layer in self.judged.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        if not n or not layers:
            return
        self.judged.eval()  # no dropout
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over all batches
            layer.train()
        with torch.no_grad(), _precision(self.work):
            for images, _ in self._batches(torch.randperm(len(self.rows), generator=generator).tolist()[:n]):
                self.judged(images.to(self.work.device, memory_format=self.layout))
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

    def _look(self, *, train_loss: float) -> None:
        said: dict[str, float | None] = {"train_loss": round(train_loss, 6)}
        score = float(len(self.history))  # without tuning people the last epoch is the best
        if self.data.tuning:
            outputs, targets = self._tuning_outputs()
            loss = float(self._loss(torch.from_numpy(outputs), torch.from_numpy(targets), is_learning=False))
            known = in_units(outputs, self.mean, self.spread, self.work.targets)
            said |= {"tuning_loss": round(loss, 6), **_metrics(known, targets, self.work.targets)}
            stated = {name: v for name, v in said.items() if not name.endswith(self._beside)}
            score = _monitored(self._stops_on, loss=loss, said=stated)
        self.history.append(said)
        if score > self.best_score:
            self.best_score, self.best_epoch = score, len(self.history) - 1
            self.best = {name: value.detach().cpu().contiguous().clone() for name, value in self.judged.state_dict().items()}

    @property
    def _stops_on(self) -> str:
        """The declared rule; loss where no stated target of the tuning people has what an AUC or a correlation needs."""
        rule, targets = str(self.work.parameters["stop_on"]), _targets(self.data.tuning)
        known = _metrics(targets, targets, self.work.targets)  # of perfect outputs: null where no outputs have any
        mine = [v for name, v in known.items() if name.startswith(f"tuning_{rule}") and not name.endswith(self._beside)]
        return rule if not mine or any(value is not None for value in mine) else "loss"

    @property
    def _beside(self) -> tuple[str, ...]:
        return tuple(f"_{target.column}" for target in self.work.targets if target.is_auxiliary)

    def _tuning_outputs(self) -> tuple[Array, Array]:
        """Mean output over the units of each tuning series, and its targets."""
        self.judged.eval()
        found = []
        for case in self.data.tuning:
            image = self.data.example(case.item_digest, False).arrays[IMAGE]  # noqa: FBT003
            tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
            found.append(_outputs(self.judged, tensor, device=self.work.device).mean(axis=0))
        return np.stack(found).astype(np.float32), _targets(self.data.tuning)

    def _batches(self, order: list[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches read one ahead; a last one of a single image joins nobody and is left out of this epoch."""
        size = int(str(self.work.parameters["batch_size"]))
        cuts = [order[at : at + size] for at in range(0, len(order), size)]
        if len(cuts) > 1 and len(cuts[-1]) == 1:
            cuts.pop()  # batch normalisation cannot learn from one image; another epoch has another order
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._batch, cuts[0])
            for following in [*cuts[1:], None]:
                ready = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._batch, following)
                yield ready

    def _batch(self, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        cases = [self.rows[row] for row in rows]
        images = [self.data.example(case.item_digest, True).arrays[IMAGE][unit] for case, unit in cases]  # noqa: FBT003
        return torch.from_numpy(np.stack(images).astype(np.float32)), torch.from_numpy(_targets([case for case, _ in cases]))

    def _loss(self, outputs: torch.Tensor, targets: torch.Tensor, *, is_learning: bool) -> torch.Tensor:
        """Mean over the targets; in learning classes are balanced, and what is learned beside the targets is added."""
        if self.learner.loss is not None:
            return self.learner.loss(outputs, targets, self.work.parameters)
        stated: list[torch.Tensor] = []
        beside: list[torch.Tensor] = []
        for at, target in enumerate(self.work.targets):
            known = ~torch.isnan(targets[:, at])
            if not bool(known.any()) or (target.is_auxiliary and not is_learning):
                continue
            given, wanted = outputs[known, at], targets[known, at]
            if target.kind == "binary":
                weight = torch.tensor(self.weight[at] if is_learning else 1.0, device=given.device)
                part = functional.binary_cross_entropy_with_logits(given, wanted, pos_weight=weight)
            else:
                part = functional.mse_loss(given, (wanted - float(self.mean[at])) / float(self.spread[at]))
            (beside if target.is_auxiliary else stated).append(part)
        found = torch.stack(stated).mean() if stated else outputs.sum() * 0
        if beside:
            found = found + float(str(self.work.parameters["also_learns_weight"])) * torch.stack(beside).mean()
        return found

    def _set_rate(self, number: int) -> None:
        """A linear rise over the warm-up, then half a cosine down to 1 % of the rate."""
        p = self.work.parameters
        rate, warm = float(str(p["learning_rate"])), int(str(p["warm_up_epochs"]))
        if number < warm:
            rate *= (number + 1) / (warm + 1)
        else:
            done = (number - warm) / max(1, self.n_epochs - warm)
            rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        save_checkpoint(
            self.work.folder / CHECKPOINT,
            heads={"network": self.network.state_dict(), "best": self.best, "average": self._average_state},
            optimizer=self.optimizer,
            told={"history": self.history, "best_epoch": self.best_epoch, "best_score": self.best_score},
        )

    def resume(self) -> None:
        """Go on from the checkpoint; one that cannot be read is left aside and the training begins anew."""
        found = open_checkpoint(self.work.folder / CHECKPOINT)
        if found is None:
            return
        told, of = found
        self.network.load_state_dict(of["network"])
        self.best = of["best"]
        if self.average is not None:
            self.average.load_state_dict(of["average"])
        restore_optimizer(self.optimizer, of.get("optimizer", {}))
        self.history, self.best_epoch, self.best_score = told["history"], told["best_epoch"], told["best_score"]

    def fitted(self) -> Fitted:
        """The best weights, the scale of the targets, and how it went."""
        state: dict[str, Array] = {f"{NETWORK}{name}": value.numpy() for name, value in self.best.items()}
        stopped_on = self._stops_on if self.data.tuning else "last epoch: no tuning people"
        if self.data.tuning and stopped_on != (asked := self.work.parameters["stop_on"]):
            stopped_on = f"{stopped_on}: tuning people of one class or value have no {asked}"
        notes = {
            "epochs": len(self.history), "best_epoch": self.best_epoch + 1, "history": self.history,
            "stopped_on": stopped_on,
            "n_units": len(self.rows), "n_weights": sum(w.numel() for w in self.network.parameters()),
        }  # fmt: skip
        return Fitted({**state, MEAN: self.mean, SPREAD: self.spread}, notes)


@contextlib.contextmanager
def _steady(work: Work) -> Iterator[None]:
    """Deterministic kernels and the declared number of threads, for as long as the training runs."""
    threads, is_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    is_filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads what was not written
    torch.set_num_threads(int(str(work.parameters["threads"])))
    torch.use_deterministic_algorithms(True, warn_only=work.device != "cpu")  # noqa: FBT003
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(is_deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = is_filled
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _precision(work: Work) -> Iterator[None]:
    is_mixed = (
        work.parameters.get("mixed_precision_on_cpu", False) if work.device == "cpu" else work.parameters["mixed_precision"]
    )
    # bfloat16 keeps the range of float32: no loss scaling
    with torch.autocast(torch.device(work.device).type, dtype=torch.bfloat16, enabled=bool(is_mixed)):
        yield


def _outputs(network: nn.Module, images: torch.Tensor, *, device: str) -> Array:
    with torch.inference_mode():
        found: Array = network(images.to(device)).float().cpu().numpy()
    return found


def _scale(cases: Sequence[Case], targets: tuple[Target, ...]) -> tuple[Array, Array]:
    values = _targets(cases).astype(np.float64)
    is_value = np.array([target.kind == "value" for target in targets])
    mean, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    return np.where(is_value, mean, 0.0), np.where(is_value & (spread > STEADY), spread, 1.0)


def _balance(cases: Sequence[Case], work: Work) -> list[float]:
    """How many times more an event weighs, by target."""
    values = _targets(cases)
    if not work.parameters["is_balanced"]:
        return [1.0] * values.shape[1]
    events, others = np.nansum(values == 1, axis=0), np.nansum(values == 0, axis=0)
    return [float(o / e) if e else 1.0 for e, o in zip(events, others, strict=True)]


def _targets(cases: Sequence[Case]) -> Array:
    return np.array([case.targets for case in cases], dtype=np.float32)


def _metrics(values: Array, targets: Array, of: tuple[Target, ...]) -> dict[str, float | None]:
    """AUC of binary targets and Pearson's r of the others, by column; null where they are not defined."""
    found: dict[str, float | None] = {}
    for at, target in enumerate(of):
        known = ~np.isnan(targets[:, at])
        given, wanted = values[known, at], targets[known, at]
        name = f"tuning_{'auc' if target.kind == 'binary' else 'pearson_r'}_{target.column}"
        found[name] = _auc(given, wanted) if target.kind == "binary" else _pearson(given, wanted)
    return found


def _auc(score: Array, truth: Array) -> float | None:
    events, others = score[truth == 1], score[truth == 0]
    if not len(events) or not len(others):
        return None
    below = (events[:, None] > others).sum() + 0.5 * (events[:, None] == others).sum()
    return round(float(below) / (len(events) * len(others)), 6)


def _pearson(given: Array, wanted: Array) -> float | None:
    if len(given) < 3 or given.std() < STEADY or wanted.std() < STEADY:
        return None
    return round(float(np.corrcoef(given, wanted)[0, 1]), 6)


def _monitored(rule: str, *, loss: float, said: Mapping[str, float | None]) -> float:
    """What early stopping follows, higher being better."""
    if rule == "loss":
        return -loss
    found = [value for name, value in said.items() if name.startswith(f"tuning_{rule}")]
    if rule not in {"auc", "pearson_r"} or not found:
        raise StudyError(f"recipes.parameters.stop_on is {rule!r}, expected loss, or auc or pearson_r where a target has it")
    return float(np.mean([-1.0 if value is None else value for value in found]))


def _seed(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{epoch}".encode()).digest()[:7], "big")
