"""A network answers alike whatever its layout in memory; in bfloat16 it answers within a stated distance, or says it cannot."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ospor_batch.errors import StudyError
from ospor_batch.models import cxr_osteoporosis, forward
from ospor_batch.models.forward import Forward, NetworkAnswers, has_bfloat16
from ospor_batch.models.networks import network_of
from ospor_batch.models.trainable import IMAGE, Example, check_training

RECIPE = cxr_osteoporosis.RECIPE
PARAMETERS = {**RECIPE.defaults, "network": "densenet_small", "width": 8, "image_pixels": 48}
NEAR = 2.0**-8  # one step of bfloat16's 8 bits at 1; measured differences are an eighth of it


def network(dims: int = 2) -> torch.nn.Module:
    torch.manual_seed(5)
    return network_of(PARAMETERS, n_channels=1, n_outputs=1, spatial_dims=dims).eval()


def examples(n: int, *, units: int = 1) -> list[Example]:
    random = np.random.default_rng(n)
    images = random.standard_normal((n, units, 1, 48, 48)).astype(np.float16)
    return [Example({IMAGE: image}, flags=(str(i),)) for i, image in enumerate(images)]


def answers(precision: str = "float32") -> NetworkAnswers:
    mean, spread = np.zeros(1), np.ones(1)
    targets = RECIPE.targets(PARAMETERS)
    return NetworkAnswers(
        RECIPE.learner, Forward(network(), device="cpu", precision=precision), PARAMETERS, targets, mean, spread
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_the_layout_moves_nothing_but_rounding(dims: int) -> None:
    images = torch.randn(3, 1, *[32] * dims, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain = network(dims)(images).numpy()
    laid_out = Forward(network(dims), device="cpu")
    assert laid_out.layout is (torch.channels_last if dims == 2 else torch.contiguous_format)
    np.testing.assert_allclose(laid_out(images), plain, atol=1e-5)


def test_images_that_were_brought_to_the_device_answer_as_those_that_were_not() -> None:
    run, batch = answers(), [*examples(3), *examples(2, units=4)]
    there = run.to_device(batch)
    assert [tuple(e.arrays[IMAGE].shape) for e in there] == [e.arrays[IMAGE].shape for e in batch]
    assert {e.arrays[IMAGE].dtype for e in there} == {torch.float32}
    assert run(there) == run(batch) == [run([one])[0] for one in batch]
    assert [answer.flags for answer in run(batch)] == [e.flags for e in batch]


def test_bfloat16_decides_as_float32_does() -> None:
    if not has_bfloat16():
        pytest.skip("no bfloat16 on this CPU")
    batch = examples(24)
    full, half = (np.array([a.score for a in answers(p)(batch)]) for p in ("float32", "bfloat16"))
    assert 0 < np.abs(full - half).max() < NEAR
    threshold = np.median(full)
    is_clear = np.abs(full - threshold) > NEAR
    assert ((full > threshold) == (half > threshold))[is_clear].all()


def test_a_precision_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudyError, match="precision is 'float8', expected float32 or bfloat16"):
        check_training({**PARAMETERS, "precision": "float8"})
    monkeypatch.setattr(forward, "has_bfloat16", lambda: False)
    with pytest.raises(StudyError, match="this CPU does not compute in it"):
        answers("bfloat16")
    assert "precision" in RECIPE.reading
