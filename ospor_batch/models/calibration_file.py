"""A calibration that others fitted, as a file, sealed to the model folder that ``recipes.model`` of a study names, and back.

The file says for which scanners, tube voltages and phantom material its coefficients hold, on how many patients they were
fitted and where they stand (methods I5); its digest stands in the model's spec. With method phantom it says of which rods
the phantom under each patient is made.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ospor_batch.errors import StudyError
from ospor_batch.imaging.calibration import Calibration, as_arrays
from ospor_batch.models.bundle import Bundle, write_bundle
from ospor_batch.models.internal_calibration import (
    DEFAULTS,
    RECIPE,
    UNKNOWN_KVP,
    check,
    method_of,
    opened,
    read_against,
    rods_in,
)
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
    parameters = _parameters(said)
    found = _by_kvp(said, parameters)
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


def calibration_text(bundle: Bundle) -> str:
    """The calibration file of a model folder, sealed or trained; sealed again it gives the same coefficients.

    What a study does not know of its scanners is left empty, and sealing asks for it. StudyError when it is another model.
    """
    if bundle.spec["recipe"] != RECIPE.name:
        raise StudyError(f"the model is of the recipe {bundle.spec['recipe']!r}, and only {RECIPE.name} has a calibration file")
    p = {name: tuple(value) if isinstance(value, list) else value for name, value in bundle.spec["parameters"].items()}
    lines = [f"{name} = {_toml(value)}" for name, value in _words(bundle.spec).items()]
    lines += [f"{name} = {_toml(p[name])}" for name in ("tissues", "levels", "kvp", "phantom_rods") if p.get(name)]
    for kvp, one in opened(dict(bundle.state), p).items():
        lines += ["", "[[calibrations]]", f"kvp_kv = {kvp:g}", f"n = {one.n}", f"residual_mg_cm3 = {one.residual_mg_cm3!r}"]
        names = ("intercept", "bone_hu", *one.tissues) if one.method == "regression" else one.tissues
        if one.method != "phantom":
            lines.append(_table("coefficients", names, one.coefficients))
        if np.isfinite(one.tissue_sd_hu).all():
            lines += [_table("tissue_hu", one.tissues, one.tissue_hu), _table("tissue_sd_hu", one.tissues, one.tissue_sd_hu)]
        if np.isfinite(one.bone_hu).all():
            lines.append(f"bone_hu = [{one.bone_hu[0]!r}, {one.bone_hu[1]!r}]")
        lines.append(f"bias = [{one.bias[0]!r}, {one.bias[1]!r}]")
    return "\n".join(lines) + "\n"


def _words(spec: Mapping[str, Any]) -> dict[str, str]:
    if (said := spec.get("calibration_file")) is not None:
        return {name: str(said[name]) for name in WORDS}
    data = spec["training_data"]
    return {
        "vendor": ", ".join(data["scanner_vendors"]), "scanner_model": "", "material": spec["reference"]["phantom_material"],
        "date": "", "source": f"study {data['study']}, training digest {spec['training_digest']}",
        "method": spec["parameters"]["method"],
    }  # fmt: skip


def _toml(value: str | tuple[str, ...]) -> str:
    return json.dumps(value, ensure_ascii=False)  # words and lists of words are the same in both


def _table(name: str, keys: tuple[str, ...], values: Any) -> str:
    return f"{name} = {{{', '.join(f'{_toml(key)} = {float(value)!r}' for key, value in zip(keys, values, strict=True))}}}"


def _parameters(said: Mapping[str, Any]) -> dict[str, Parameter]:
    is_phantom = said["method"] == "phantom"
    parameters: dict[str, Parameter] = {
        **DEFAULTS,
        "method": str(said["method"]),
        "tissues": _list(said, "tissues", default=DEFAULTS["tissues"] if is_phantom else ()),
        "levels": _list(said, "levels", default=DEFAULTS["levels"]),
        "kvp": str(said.get("kvp", DEFAULTS["kvp"])),
        "phantom_material": str(said["material"]).lower() if is_phantom else "",
        "phantom_rods": _list(said, "phantom_rods", default=()),
    }
    check(parameters)
    return parameters


def _list(said: Mapping[str, Any], name: str, *, default: Parameter) -> Parameter:
    given = said.get(name, default)
    if not isinstance(given, list | tuple):
        raise StudyError(f"calibration file: {name} is {given!r}, expected a list")
    return tuple(str(one) for one in given)


def _by_kvp(said: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> dict[float, Mapping[str, Any]]:
    """What is said of each tube voltage; 0 kV is all of them, and the only one where coefficients are pooled."""
    given = said.get("calibrations", [])
    found = {float(one["kvp_kv"]): one for one in map(_checked, given)}
    if not found or len(found) < len(given):
        raise StudyError("calibration file: give [[calibrations]], one for each tube voltage")
    is_for_all = parameters["kvp"] == "pooled" or parameters["method"] == "phantom"
    if is_for_all != (set(found) == {UNKNOWN_KVP}) or (not is_for_all and UNKNOWN_KVP in found):
        raise StudyError(
            'calibration file: kvp = "pooled" and method = "phantom" take one entry of [[calibrations]] with kvp_kv = 0, all '
            "others one for each tube voltage"
        )
    return found


def _checked(one: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in NUMBERS:
        value = one.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not np.isfinite(value) or value < 0:
            raise StudyError(f"calibration file: calibrations.{name} is {value!r}, expected a number")
    if not one["n"]:
        raise StudyError("calibration file: calibrations.n is 0: nobody was measured")
    return one


def _calibration(one: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> Calibration:
    method, rods = method_of(parameters), rods_in(parameters)
    tissues = read_against(parameters)
    names = ("intercept", "bone_hu", *tissues) if method == "regression" else tissues
    is_told = bool(one.get("tissue_hu")) or method != "phantom"  # rods may be sealed before anybody was measured on them
    bias, bone = one.get("bias", [0.0, 1.0]), one.get("bone_hu", [-np.inf, np.inf])
    if len(bias) != 2 or len(bone) != 2 or not float(bias[1]) > 0 or not float(bone[0]) < float(bone[1]):
        raise StudyError("calibration file: bias is [intercept, slope above 0], bone_hu is [least, greatest]")
    return Calibration(
        method=method,
        tissues=tissues,
        coefficients=np.array([rod.density_mg_cm3 for rod in rods]) if rods else _numbers(one, "coefficients", names),
        n=int(one["n"]),
        residual_mg_cm3=float(one["residual_mg_cm3"]),
        tissue_hu=_numbers(one, "tissue_hu", tissues) if is_told else np.zeros(len(tissues)),
        tissue_sd_hu=_numbers(one, "tissue_sd_hu", tissues) if is_told else np.full(len(tissues), np.inf),
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
