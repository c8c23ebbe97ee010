"""The recipes of generated study files: published ones, made small enough for two cores by parameters that say so."""

from __future__ import annotations

import json
from collections.abc import Sequence

SMALL = {  # of every network of a reduced study; without these lines a recipe has its full size
    "network": '"densenet_small"', "width": "16", "epochs": "20", "patience_epochs": "6", "batch_size": "16",
    "learning_rate": "1e-3", "threads": "1",
}  # fmt: skip
# Areal density and TBS follow the build of a person too (latent.expected_t, expected_tbs), and an image that reaches from the
# fat of the back into the belly shows it
WIDE = {"image_mm": "160.0"}
DEGRADED = "degraded texture (methods L9)"
TBS_REFERENCE = """\
[[references]]
id = "tbs"
standard = "tbs"

"""
CUT = "80 mg/cm3 is osteoporosis by QCT"
AGE_ALONE = """\
[[recipes.criteria]]                       # in place of those above, which are for CT
name = "age 50 or older"
keep = "age_at_image >= 50"
"""
QCT_CENTER = """\
[[recipes.criteria]]                       # in place of those above: rods hold at any tube voltage, and lie in the QCT center
name = "age 50 or older"
keep = "age_at_image >= 50"
[[recipes.criteria]]
name = "unenhanced"
rule = "unenhanced"
[[recipes.criteria]]
name = "QCT center"
keep = "center = 'west'"
"""
AGAIN = "# the same once more with other parameters, side by side in the report"
FAMILIES = ("resnet18", "efficientnet_b0", "seresnet18", "vgg11")  # beside the DenseNet of ct_cnn_smi: ours, not the paper's


def recipe_text(name: str, *, is_small: bool, with_substudies: bool = False) -> str:
    """The published recipe of that name, and what is reported beside it."""
    return {
        "cxr_osteoporosis": _radiograph,
        "ct_cnn_smi": _muscle,
        "ct_bmd_tbs": _areal,
        "ct_qct_bmd": _volumetric,
        "ldct_internal_calibration": _calibration,
    }[name](is_small, with_substudies)


def phantom_text(rods: Sequence[str], *, material: str) -> str:
    """Density by the rods under the patients of the QCT center; an exam without them is refused by a typed reason."""
    parameters = {"method": '"phantom"', "phantom_material": f'"{material}"', "phantom_rods": json.dumps(list(rods))}
    few = {"minimum_cases": "3"}  # rods need nobody to be fitted on; the train partition tells their bias alone
    return (
        _recipe("ldct_internal_calibration", "qct_spine", "fixed = 80", {**parameters, **few}, key="qct_phantom", note=CUT)
        + QCT_CENTER
    )


def _radiograph(is_small: bool, with_substudies: bool) -> str:  # noqa: FBT001
    small = {**SMALL, "image_pixels": "96"} if is_small else {}
    text = _recipe("cxr_osteoporosis", "dxa_any_site", 'rule = "youden"', small) + AGE_ALONE
    changes = {"spine": 'region = "spine"', "48px": "image_pixels = 48"} if with_substudies else {}
    return text + _substudies(changes)


def _muscle(is_small: bool, is_of_four: bool) -> str:  # noqa: FBT001
    small = {**SMALL, "image_pixels": "48"} if is_small else {}
    # masks beside generated images hold L1 to L4 alone, so the slice lies at L3 and muscle is found by its CT number
    here = {"levels": '["L3"]', "muscle_from": '"window"'}
    cnn = _recipe("ct_cnn_smi", "dxa_any_site", 'rule = "youden"', {**small, **here})
    families = FAMILIES[:1] if is_of_four else FAMILIES  # five CNNs under one protocol; in the small study of four centers two
    cnn += _substudies({family: f'network = "{family}"' for family in families})
    return f"{cnn}\n" + _recipe("smi_comparator", "dxa_any_site", 'rule = "youden"', here)


def _areal(is_small: bool, is_of_four: bool) -> str:  # noqa: FBT001
    small = {**SMALL, "network": '"resnet18"', "image_pixels": "64"} if is_small else {}
    small |= WIDE
    bmd = _recipe("ct_bmd_tbs", "dxa_any_site", 'rule = "youden"', small, key="ct_bmd")
    reports = {**small, "reports": '"tbs"'}
    if is_of_four:  # of the four invented centers one alone prints TBS, too few to be learned from by themselves
        return f"{bmd}\n" + _recipe("ct_bmd_tbs", "dxa_any_site", 'rule = "youden"', reports, key="ct_tbs")
    return f"{bmd}\n{TBS_REFERENCE}" + _recipe("ct_bmd_tbs", "tbs", "fixed = 1.23", reports, key="ct_tbs", note=DEGRADED)


def _volumetric(is_small: bool, _with_substudies: bool) -> str:  # noqa: FBT001
    small = {**SMALL, "crop_pixels": "32"} if is_small else {}
    return _recipe("ct_qct_bmd", "qct_spine", "fixed = 80", small, note=CUT)


def _calibration(_is_small: bool, _with_substudies: bool) -> str:  # noqa: FBT001
    pooled = {"kvp": '"pooled"'}
    as_is = _recipe("ldct_internal_calibration", "qct_spine", "fixed = 80", pooled, note=CUT)
    mended = _recipe(
        "ldct_internal_calibration", "qct_spine", "fixed = 80", {**pooled, "report": '"recalibrated"'},
        key="ldct_recalibrated",
    )  # fmt: skip
    return f"{as_is}\n{mended}"


def _recipe(
    name: str, reference: str, threshold: str, parameters: dict[str, str], *, key: str | None = None, note: str = ""
) -> str:
    lines = ["[[recipes]]", f'name = "{name}"', *([f'id = "{key}"'] if key else []), f'reference = "{reference}"']
    lines.append(f"threshold = {{ {threshold} }}" + (f"                 # {note}" if note else ""))
    if parameters:
        lines += ["[recipes.parameters]", *(f"{name} = {value}" for name, value in parameters.items())]
    return "\n".join(lines) + "\n"


def _substudies(changes: dict[str, str]) -> str:
    """Tables of substudies, by their id."""
    tables = [["[[recipes.substudies]]", f'id = "{key}"', f"parameters = {{ {changed} }}"] for key, changed in changes.items()]
    if tables:
        tables[0][0] += f"                     {AGAIN}"
    return "".join("\n".join(lines) + "\n" for lines in tables)
