"""A fit is the same twice, goes on from its checkpoint to the same weights, and says what it cannot do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ospor_batch.errors import StudyError
from ospor_batch.models import cxr_osteoporosis, training
from ospor_batch.models.forward import has_bfloat16
from ospor_batch.models.networks import network_of
from ospor_batch.models.spec import Prediction
from ospor_batch.models.trainable import IMAGE, Case, Example, Fitted, Target, TrainingSet, Work

RECIPE = cxr_osteoporosis.RECIPE
SMALL = {
    **RECIPE.defaults, "network": "densenet_small", "width": 4, "image_pixels": 16, "epochs": 3, "batch_size": 8,
    "learning_rate": 3e-3, "threads": 1, "augment_mirror": True,
}  # fmt: skip
TARGETS = (Target("is_osteoporosis", "binary", "probability"),)


def cases(n: int, *, first: int = 0) -> tuple[Case, ...]:
    return tuple(Case(f"{first + i:032x}", (float(i % 2),)) for i in range(n))


def example(item: str, _is_training: bool) -> Example:
    """An image whose middle is brighter where the number is odd."""
    number = int(item, 16)
    image = np.random.default_rng(number).standard_normal((1, 1, 16, 16)).astype(np.float16)
    image[..., 6:10, 6:10] += 2 * (number % 2)
    return Example({IMAGE: image})


def fitted(folder: Path, *, n: int = 24, tuning: int = 12, targets: tuple[Target, ...] = TARGETS, **changes: object) -> Fitted:
    parameters = {**SMALL, **changes}
    data = TrainingSet(cases(n), cases(tuning, first=1000), example)
    return RECIPE.learner.fit(data, Work(parameters, targets, seed=7, folder=folder))


def same(a: Fitted, b: Fitted) -> bool:
    return a.state.keys() == b.state.keys() and all(np.array_equal(a.state[k], b.state[k]) for k in a.state)


def test_the_same_training_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    one = fitted(tmp_path / "a")
    assert same(one, fitted(tmp_path / "b"))
    other = RECIPE.learner.fit(
        TrainingSet(cases(24), cases(12, first=1000), example), Work(SMALL, TARGETS, seed=8, folder=tmp_path / "c")
    )
    assert not same(one, other)


def test_batch_statistics_are_of_images_as_they_are_read_later(tmp_path: Path) -> None:
    learner = replace(RECIPE.learner, augment=lambda images, _parameters, _generator: images + 5)
    data, mean = TrainingSet(cases(24), cases(12, first=1000), example), "network.features.norm0.running_mean"
    found = {}
    for name, units in (("plain", 1024), ("augmented", 0)):
        parameters = {**SMALL, "epochs": 1, "learning_rate": 1e-9, "statistics_units": units}
        found[name] = learner.fit(data, Work(parameters, TARGETS, seed=7, folder=tmp_path / name))
    weight = torch.from_numpy(np.array(found["plain"].state["network.features.conv0.weight"]))
    images = torch.from_numpy(
        np.concatenate([example(c.item_digest, True).arrays[IMAGE] for c in cases(24)]).astype(np.float32)
    )
    seen = torch.nn.functional.conv2d(images, weight, stride=2, padding=3).mean(dim=(0, 2, 3)).numpy()
    assert found["plain"].state[mean] == pytest.approx(seen, abs=1e-5)
    assert np.abs(found["augmented"].state[mean] - seen).max() > 0.05


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average: float) -> None:
    whole = fitted(tmp_path / "whole", weight_average=average)
    save = training._Run.save

    def killed(run: training._Run) -> None:
        save(run)
        if len(run.history) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Run, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "killed", weight_average=average)
    monkeypatch.undo()
    resumed = fitted(tmp_path / "killed", weight_average=average)
    assert same(whole, resumed)
    assert whole.notes == resumed.notes


def test_the_moving_mean_of_the_weights_is_what_is_kept(tmp_path: Path) -> None:
    last, slow = (fitted(tmp_path / str(share), tuning=0, epochs=1, weight_average=share) for share in (0.0, 0.99999))
    moved = [name for name in last.state if name.endswith("weight") and not np.array_equal(last.state[name], slow.state[name])]
    assert moved
    held = "network.features.conv0.weight"  # the mean hardly leaves the weights of the first step
    first = fitted(tmp_path / "first", tuning=0, epochs=1, batch_size=24)
    assert np.abs(slow.state[held] - last.state[held]).max() > 1e-4
    assert np.abs(slow.state[held] - first.state[held]).mean() < np.abs(last.state[held] - first.state[held]).mean()


def test_a_damaged_checkpoint_begins_anew(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "whole")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / training.CHECKPOINT).write_bytes(b"not a checkpoint")
    assert same(whole, fitted(tmp_path / "damaged"))


def test_it_learns_and_stops_when_tuning_does_not_improve(tmp_path: Path) -> None:
    found = fitted(tmp_path, n=48, tuning=24, epochs=40, patience_epochs=3, stop_on="auc", learning_rate=1e-2)
    history = found.notes["history"]
    assert history[found.notes["best_epoch"] - 1]["tuning_auc_is_osteoporosis"] > 0.9
    assert found.notes["epochs"] < 40
    assert found.notes["epochs"] - found.notes["best_epoch"] == 3


def test_without_tuning_people_the_last_epoch_is_kept(tmp_path: Path) -> None:
    found = fitted(tmp_path, tuning=0)
    assert found.notes["best_epoch"] == found.notes["epochs"] == SMALL["epochs"]
    assert found.notes["stopped_on"] == "last epoch: no tuning people"


def test_tuning_people_of_one_class_are_followed_by_their_loss_and_that_is_said(tmp_path: Path) -> None:
    """No AUC is defined in any epoch: to follow it all the same would keep the first one."""
    one_class = cases(24, first=1000)[::2]
    data = TrainingSet(cases(24), one_class, example)
    of = {rule: Work({**SMALL, "stop_on": rule}, TARGETS, seed=7, folder=tmp_path / rule) for rule in ("auc", "loss")}
    by_auc, by_loss = (RECIPE.learner.fit(data, of[rule]) for rule in ("auc", "loss"))
    assert same(by_auc, by_loss)
    assert by_auc.notes["best_epoch"] == by_loss.notes["best_epoch"] > 1
    assert by_auc.notes["stopped_on"] == "loss: tuning people of one class or value have no auc"
    assert all(epoch["tuning_auc_is_osteoporosis"] is None for epoch in by_auc.notes["history"])


def test_an_answer_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    state = fitted(tmp_path).state
    answers = RECIPE.learner.open(state, SMALL, targets=TARGETS, device="cpu")
    examples = [example(f"{i:032x}", False) for i in range(5)]
    together = answers(examples)
    assert together == [answers([one])[0] for one in examples]
    assert all(0 <= one.score <= 1 for one in together)


def test_a_value_target_comes_back_in_its_unit_and_an_unknown_one_is_not_learned(tmp_path: Path) -> None:
    targets = (Target("label_value", "value", "mg/cm3"), Target("tbs", "value", "tbs"))
    train = tuple(
        Case(c.item_digest, (100.0 + 50 * c.targets[0], float("nan") if i % 3 else 1.3)) for i, c in enumerate(cases(24))
    )
    parameters = {**SMALL, "network": "resnet18", "epochs": 12, "learning_rate": 3e-3}
    learner = replace(
        RECIPE.learner,
        network=lambda p: network_of(p, n_channels=1, n_outputs=2),
        answer=lambda outputs, _e, _p: outputs.mean(0),
    )
    found = learner.fit(TrainingSet(train, (), example), Work(parameters, targets, seed=1, folder=tmp_path))
    outputs = np.array(
        learner.open(found.state, parameters, targets=targets, device="cpu")([example(c.item_digest, False) for c in train])
    )
    is_high = np.array([c.targets[0] == 150 for c in train])
    assert 70 < outputs[~is_high, 0].mean() < outputs[is_high, 0].mean() < 180
    assert np.isfinite(outputs).all()


def test_what_is_learned_beside_a_target_is_fitted_and_neither_stated_nor_stopped_on(tmp_path: Path) -> None:
    parameters = {**SMALL, "also_learns": ("is_female", "height_m"), "stop_on": "auc", "epochs": 8, "learning_rate": 1e-2}
    targets = RECIPE.targets(parameters)
    assert [target.column for target in targets] == ["is_osteoporosis", "is_female", "height_m"]

    def case(of: Case) -> Case:  # sex and height follow the image, osteoporosis is chance to it
        number = int(of.item_digest, 16)
        return Case(of.item_digest, (float(number % 3 == 0), of.targets[0], 1.6 + 0.1 * of.targets[0]))

    data = TrainingSet(tuple(map(case, cases(48))), tuple(map(case, cases(24, first=1000))), example)
    found = RECIPE.learner.fit(data, Work(parameters, targets, seed=7, folder=tmp_path))
    best = found.notes["history"][found.notes["best_epoch"] - 1]
    assert best["tuning_auc_is_osteoporosis"] == max(e["tuning_auc_is_osteoporosis"] for e in found.notes["history"])
    assert max(e["tuning_auc_is_female"] for e in found.notes["history"]) > 0.9
    assert max(e["tuning_pearson_r_height_m"] for e in found.notes["history"]) > 0.7
    answer = RECIPE.learner.open(found.state, parameters, targets=targets, device="cpu")([example("0" * 32, False)])[0]
    assert isinstance(answer, Prediction)
    assert answer.unit == "probability"


def test_a_cpu_without_bfloat16_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "has_bfloat16", lambda: False)
    with pytest.raises(StudyError, match="mixed_precision_on_cpu is true, but this CPU does not compute in bfloat16"):
        fitted(tmp_path, mixed_precision_on_cpu=True)


@pytest.mark.skipif(not has_bfloat16(), reason="this CPU does not compute in bfloat16")
def test_bfloat16_on_a_cpu_learns_nearly_the_same(tmp_path: Path) -> None:
    plain, mixed = (fitted(tmp_path / str(on), mixed_precision_on_cpu=on) for on in (False, True))
    assert not same(plain, mixed)
    assert all(value.dtype == plain.state[name].dtype for name, value in mixed.state.items())
    losses = [[epoch["train_loss"] for epoch in one.notes["history"]] for one in (plain, mixed)]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)


def test_nonsense_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="stop_on is 'f1', expected loss, or auc or pearson_r"):
        fitted(tmp_path / "a", stop_on="f1")
    with pytest.raises(StudyError, match="network is 'vgg', expected one of densenet121"):
        fitted(tmp_path / "b", network="vgg")
    with pytest.raises(StudyError, match="left the finite numbers in epoch .*learning_rate"):
        fitted(tmp_path / "c", learning_rate=1e30)
