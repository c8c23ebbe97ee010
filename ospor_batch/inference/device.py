"""Predict a batch on the device of a spec; when its memory does not hold it, in halves, then on the CPU or not at all."""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Sequence
from typing import Any, Literal

from ospor_batch.errors import ItemRefused, StudyError, nameless
from ospor_batch.inference.timing import Stopwatch
from ospor_batch.models.registry import predictor_here
from ospor_batch.models.spec import Prediction, Predictor, PredictorSpec

FAILED = "predictor_failed"
OutOfMemory = Literal["cpu", "reject"]
Answer = tuple[Prediction, str] | ItemRefused
"""A prediction with the device that made it, or why there is none."""


class DeviceLostError(Exception):
    """The CUDA context of this process is broken; nothing but a new process mends it."""


class Device:
    """A predictor where it computes; keeps the batch size that its memory was found to hold."""

    def __init__(self, spec: PredictorSpec, *, out_of_memory: OutOfMemory, watch: Stopwatch) -> None:
        if spec.device == "cuda" and not _has_cuda():
            raise StudyError("compute.gpu is given, but torch sees no GPU in its workers")
        self.spec = spec
        self.out_of_memory = out_of_memory
        self.watch = watch
        self.predictor: Predictor = predictor_here(spec)
        self.batch_items = max(1, self.predictor.batch_items)

    def predict(self, batch: Sequence[Any]) -> list[Answer]:
        """One answer for each prepared item, in order."""
        answers: list[Answer] = []
        at = 0
        while at < len(batch):
            part = batch[at : at + self.batch_items]
            try:
                answers += [self._named(answer) for answer in self._on(self.predictor, part)]
            # predictors are other people's too; which failures are of one item is sorted out below
            except Exception as error:  # noqa: BLE001
                found = self._recovered(part, error)
                if found is None:
                    continue  # the same items again, fewer at once
                answers += found
            at += len(part)
        return answers

    def _on(self, predictor: Predictor, part: Sequence[Any]) -> Sequence[Prediction | ItemRefused]:
        to_device = getattr(predictor, "to_device", None)
        if to_device is not None:
            with self.watch.on("transfer"):
                part = to_device(part)
        with self.watch.on("compute"):
            return predictor.predict(part)

    def _recovered(self, part: Sequence[Any], error: Exception) -> list[Answer] | None:
        """Answers for a part that failed; null when it shall be tried again in smaller batches."""
        if is_out_of_memory(error):
            error.__traceback__ = None  # its frames hold the tensors that are in the way
            _free()
            if len(part) > 1:
                self.batch_items = len(part) // 2
                return None
            return [self._alone_without_room(part)]
        if _is_broken_context(error):
            raise DeviceLostError from None
        if isinstance(error, StudyError):
            raise error
        if len(part) == 1:
            return [failed(error)]
        return [answer for one in part for answer in self._one(one)]

    def _one(self, prepared: Any) -> list[Answer]:
        kept, self.batch_items = self.batch_items, 1
        try:
            return self.predict([prepared])
        finally:
            self.batch_items = kept

    def _alone_without_room(self, part: Sequence[Any]) -> Answer:
        if self.spec.device != "cpu" and self.out_of_memory == "cpu":
            on_cpu = predictor_here(dataclasses.replace(self.spec, device="cpu"))
            try:
                return self._named(self._on(on_cpu, part)[0], device="cpu")
            # as in predict: the verdict is of this item alone
            except Exception as error:  # noqa: BLE001
                if not is_out_of_memory(error):
                    return failed(error)
        # a larger device may do it: another try next time
        return ItemRefused("out_of_memory", f"the memory of the {self.spec.device} does not hold it", is_transient=True)

    def _named(self, answer: Prediction | ItemRefused, *, device: str | None = None) -> Answer:
        return answer if isinstance(answer, ItemRefused) else (answer, device or self.spec.device)


def failed(error: Exception) -> ItemRefused:
    """What becomes of an item on which a predictor failed; worth another try, since its code may have been mended."""
    if isinstance(error, ItemRefused):
        return error
    return ItemRefused(FAILED, str(nameless(error)).partition(";")[0], is_transient=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine had no room: torch's own class, Python's, or the text of torch's CPU allocator."""
    torch: Any = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _is_broken_context(error: BaseException) -> bool:
    """Whether CUDA failed in a way after which every further call in this process fails too."""
    torch: Any = sys.modules.get("torch")
    accelerator = getattr(torch, "AcceleratorError", None)
    return accelerator is not None and isinstance(error, accelerator)


def _free() -> None:
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())
