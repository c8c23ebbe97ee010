"""A calibration that others fitted, as a file, sealed to the model folder that ``recipes.model`` of a study names.

The file says for which scanners, tube voltages and phantom material its coefficients hold, on how many patients they were
fitted and where they stand (methods I5); its digest stands in the model's spec.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ospor_batch.errors import StudyError
from ospor_batch.imaging.calibration import METHODS, Calibration, as_arrays
from ospor_batch.models.bundle import write_bundle
from ospor_batch.models.internal_calibration import DEFAULTS, RECIPE, check
from ospor_batch.models.spec import PREPROCESSING, Parameter

WORDS = ("vendor", "scanner_model", "material", "date", "source", "method")
NUMBERS = ("kvp_kv", "n", "residual_mg_cm3")


def seal_calibration(text: str, *, folder: Path, pattern: str = "*.nii*") -> str:
    """Write the model folder of a calibration file and return its digest.

    pattern: of the masks it is to be used with. StudyError names the entry that is missing or cannot be.
    """
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"calibration file: no TOML ({error})") from None
    for name in WORDS:
        if not str(said.get(name, "")).strip():
            raise StudyError(
                f"calibration file: {name} is missing; expected all of {', '.join((*WORDS, 'tissues', 'calibrations'))}"
            )
    parameters: dict[str, Parameter] = {
        **DEFAULTS, "method": str(said["method"]), "tissues": tuple(str(tissue) for tissue in said.get("tissues", [])),
        "levels": tuple(str(level) for level in said.get("levels", DEFAULTS["levels"])),
    }  # fmt: skip
    check(parameters)
    found = {float(one["kvp_kv"]): one for one in map(_checked, said.get("calibrations", []))}
    if not found or len(found) < len(said["calibrations"]):
        raise StudyError("calibration file: give [[calibrations]], one for each tube voltage")
    state = as_arrays({kvp: _calibration(one, parameters) for kvp, one in found.items()})
    digest = hashlib.sha256(text.encode()).hexdigest()
    spec = {
        "recipe": RECIPE.name, "recipe_version": RECIPE.version, "description": RECIPE.description,
        "parameters": {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()},
        "preprocessing": {"version": PREPROCESSING, "parameters": sorted(RECIPE.preparing), "masks": {"pattern": pattern}},
        "targets": [{"column": t.column, "kind": t.kind, "unit": t.unit} for t in RECIPE.targets(parameters)],
        "threshold": {"rule": "fixed", "id": "", "score_cut": None, "reason": "a calibration file states no threshold"},
        "calibration_file": {**{name: str(said[name]) for name in WORDS}, "n": [int(one["n"]) for one in found.values()],
                             "kvp_kv": list(found), "sha256": digest},
    }  # fmt: skip
    metadata = {"name": RECIPE.name, "description": RECIPE.description, "version": digest[:16]}
    return write_bundle(folder, state=state, metadata=metadata, spec=spec, card=_card(said, digest))


def _checked(one: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in NUMBERS:
        value = one.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not np.isfinite(value) or value < 0:
            raise StudyError(f"calibration file: calibrations.{name} is {value!r}, expected a number")
    if not one["n"]:
        raise StudyError("calibration file: calibrations.n is 0: nobody was measured")
    return one


def _calibration(one: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> Calibration:
    tissues, method = parameters["tissues"], parameters["method"]
    assert isinstance(tissues, tuple)
    names = tissues if method == METHODS[0] else ("intercept", "bone_hu", *tissues)
    bias, bone = one.get("bias", [0.0, 1.0]), one.get("bone_hu", [-np.inf, np.inf])
    if len(bias) != 2 or len(bone) != 2 or not float(bias[1]) > 0 or not float(bone[0]) < float(bone[1]):
        raise StudyError("calibration file: bias is [intercept, slope above 0], bone_hu is [least, greatest]")
    return Calibration(
        method="reference_tissue" if method == METHODS[0] else "regression",
        tissues=tissues,
        coefficients=_numbers(one, "coefficients", names),
        n=int(one["n"]),
        residual_mg_cm3=float(one["residual_mg_cm3"]),
        tissue_hu=_numbers(one, "tissue_hu", tissues),
        tissue_sd_hu=_numbers(one, "tissue_sd_hu", tissues),
        bone_hu=(float(bone[0]), float(bone[1])),
        bias=(float(bias[0]), float(bias[1])),
    )


def _numbers(one: Mapping[str, Any], table: str, names: tuple[str, ...]) -> Any:
    given = one.get(table, {})
    if not isinstance(given, dict) or set(given) != set(names):
        raise StudyError(
            f"calibration file: calibrations.{table} must hold {', '.join(names)}; it has {', '.join(given) or 'nothing'}"
        )
    values = np.array([given[name] for name in names], np.float64)
    if not np.isfinite(values).all():
        raise StudyError(f"calibration file: calibrations.{table} holds what is no number")
    return values


def _card(said: Mapping[str, Any], digest: str) -> str:
    lines = "\n".join(f"- {name}: {said[name]}" for name in WORDS)
    return f"""\
# {RECIPE.name}, version {RECIPE.version}, from a calibration file

{RECIPE.description}

{lines}
- SHA-256 of the file: {digest}

Its coefficients hold for those scanners, tube voltages and that material alone. Nothing here checks them: compare with QCT
of your own patients before use.
"""
