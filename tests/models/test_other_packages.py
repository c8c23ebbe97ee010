"""Predictors of other packages: found by entry point, named by the digest of their model; the examples of the docs run."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ospor_batch.config import recipes
from ospor_batch.config.recipes import Recipe
from ospor_batch.errors import StudyError
from ospor_batch.imaging.radiograph import Radiograph
from ospor_batch.imaging.volume import Volume
from ospor_batch.models import registry
from ospor_batch.models.registry import kind_of, predictor_here, spec_of
from ospor_batch.models.spec import Pixels

PAGE = Path(__file__).parents[2] / "docs" / "predictors.md"
OFFERED: dict[str, Any] = {}


@pytest.fixture(name="offered")
def offering(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], None]:
    """Offer an object as if an installed package did."""

    def offer(name: str, what: object) -> None:
        OFFERED[name] = what
        entry = EntryPoint(name, f"{__name__}:OFFERED", "ospor_batch.predictors")

        def entry_points(*, group: str, name: str | None = None) -> EntryPoints:
            assert group == "ospor_batch.predictors"
            found = SimpleNamespace(name=entry.name, value=entry.value, dist=None, load=lambda: OFFERED[entry.name])
            return [found] if name in {None, entry.name} else []  # type: ignore[return-value]

        monkeypatch.setattr(registry, "entry_points", entry_points)
        monkeypatch.setattr(recipes, "entry_points", lambda group: SimpleNamespace(names={entry.name}))

    registry._of_another_package.cache_clear()
    return offer


def example(name: str) -> dict[str, Any]:
    """The names that an example of the docs defines."""
    (code,) = re.findall(rf"<!-- example: {name} -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found: dict[str, Any] = {"__name__": f"docs_{name}"}
    sys.modules[f"docs_{name}"] = ModuleType(f"docs_{name}")  # dataclasses look their module up
    exec(compile(code, str(PAGE), "exec"), found)
    return found


def test_a_monai_bundle_predicts(tmp_path: Path, offered: Callable[[str, object], None]) -> None:
    from monai.networks.nets import DenseNet
    from safetensors.torch import save_file

    shape = {"init_features": 4, "growth_rate": 2, "block_config": [1, 1]}
    (tmp_path / "b" / "configs").mkdir(parents=True)
    (tmp_path / "b" / "models").mkdir()
    (tmp_path / "b" / "configs" / "metadata.json").write_text(json.dumps({"network": shape}))
    network = DenseNet(spatial_dims=3, in_channels=1, out_channels=1, **shape)
    save_file(network.state_dict(), tmp_path / "b" / "models" / "model.safetensors")
    offered("my_bmd", example("bundle")["KIND"])
    spec = spec_of("my_bmd", parameters={"spacing_mm": 4.0}, pattern="*", labels={}, folder=tmp_path / "b")
    predictor = predictor_here(spec)
    affine = np.array([[0, 0, 2.0, 0], [0, 2.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    hu = np.random.default_rng(0).normal(40, 200, (16, 24, 24)).astype(np.float32)
    (answer,) = predictor.predict(
        [predictor.prepare(Pixels(Volume(hu=hu, affine=affine, is_padding=None, n_missing_slices=0)))]
    )
    assert 0 < answer.score < 1  # type: ignore[union-attr]
    content = (tmp_path / "b" / "configs" / "metadata.json").read_text()
    (tmp_path / "b" / "configs" / "metadata.json").write_text(content + " ")
    changed = spec_of("my_bmd", parameters={"spacing_mm": 4.0}, pattern="*", labels={}, folder=tmp_path / "b")
    assert changed.model_digest != spec.model_digest


def exported(target: Path, *, pixels: int) -> Callable[[np.ndarray], float]:
    """Write a small network as ONNX, as the page says; the network itself, from an image (row, column) to a chance."""
    import torch

    from ospor_batch.models.networks import network_of

    torch.manual_seed(0)
    network = network_of({"network": "densenet_small", "width": 4}, n_channels=1, n_outputs=1).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have onnxscript installed too
        torch.onnx.export(network, (torch.rand(1, 1, pixels, pixels),), str(target), dynamo=False)

    def chance(image: np.ndarray) -> float:
        with torch.inference_mode():
            return float(torch.sigmoid(network(torch.from_numpy(image)[None, None]))[0, 0])

    return chance


def test_an_onnx_model_predicts(tmp_path: Path, offered: Callable[[str, object], None]) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is optional")
    network = exported(tmp_path / "m.onnx", pixels=32)
    offered("my_cxr", example("onnx")["KIND"])
    predictor = predictor_here(spec_of("my_cxr", parameters={"pixels": 32}, pattern="*", labels={}, folder=tmp_path / "m.onnx"))
    image = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    (answer,) = predictor.predict([predictor.prepare(Pixels(radiograph=Radiograph(image, None, (0, 32, 0, 32), ())))])
    assert answer.score == pytest.approx(network(image), abs=1e-5)  # type: ignore[union-attr]


def test_a_study_may_name_it_and_a_misspelt_one_is_refused(offered: Callable[[str, object], None]) -> None:
    offered("my_bmd", example("onnx")["KIND"])
    threshold = {"rule": "youden"}
    assert Recipe.model_validate({"name": "my_bmd", "reference": "r", "threshold": threshold}).key == "my_bmd"
    with pytest.raises(ValidationError, match="no recipe or predictor named 'my_bdm'.*did you mean 'my_bmd'"):
        Recipe.model_validate({"name": "my_bdm", "reference": "r", "threshold": threshold})


def test_what_is_no_predictor_or_has_no_model_is_refused(tmp_path: Path, offered: Callable[[str, object], None]) -> None:
    offered("odd", 7)
    with pytest.raises(StudyError, match="predictor 'odd' of the package unknown: .* is a int, expected an ospor_batch"):
        kind_of("odd")
    offered("empty", example("onnx")["KIND"])
    with pytest.raises(StudyError, match="model none: neither a file nor a folder with files"):
        spec_of("empty", parameters={}, pattern="*", labels={}, folder=tmp_path / "none")
    with pytest.raises(StudyError, match="no predictor named 'nobody'"):
        kind_of("nobody")
