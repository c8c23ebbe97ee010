"""What a network may learn beside its targets and never states: sex, build and age, from the manifest and the matched exam.

Areal density and T-scores follow the build of a person as well as the bone. Few labels, each with its own error, teach that
slowly; sex and height are known without error, and to see them is half of it (Caruana 1997, Mach Learn 28:41).
"""

from __future__ import annotations

from ospor_batch.errors import StudyError
from ospor_batch.models.spec import Parameter
from ospor_batch.models.trainable import Parameters, Target

ALSO_LEARNS = "also_learns"
AUXILIARY: dict[str, Parameter] = {
    ALSO_LEARNS: (),  # names of KNOWN: learned from the same image beside the targets, never stated, never stopped on
    "also_learns_weight": 0.5,  # of their mean loss, against 1 of the targets'
}
KNOWN = {
    "is_female": Target("is_female", "binary", "probability", is_auxiliary=True),
    "age_at_image": Target("age_at_image", "value", "years", is_auxiliary=True),
    "height_m": Target("height_m", "value", "m", is_auxiliary=True),
    "weight_kg": Target("weight_kg", "value", "kg", is_auxiliary=True),
    "bmi_kg_m2": Target("bmi_kg_m2", "value", "kg/m2", is_auxiliary=True),
    "lumbar_spine_t": Target("lumbar_spine_t", "value", "T-score", is_auxiliary=True),
    "femoral_neck_t": Target("femoral_neck_t", "value", "T-score", is_auxiliary=True),
    "total_hip_t": Target("total_hip_t", "value", "T-score", is_auxiliary=True),
}


def with_auxiliary(targets: tuple[Target, ...], parameters: Parameters) -> tuple[Target, ...]:
    """The targets, and behind them what is learned beside them."""
    names = parameters.get(ALSO_LEARNS, ())
    assert isinstance(names, tuple)
    return (*targets, *(KNOWN[name] for name in names))


def check_auxiliary(parameters: Parameters) -> None:
    """StudyError names what cannot be learned beside the targets."""
    names = parameters.get(ALSO_LEARNS, ())
    assert isinstance(names, tuple)  # registry: of the kind of its default
    if unknown := [name for name in names if name not in KNOWN]:
        raise StudyError(f"recipes.parameters.{ALSO_LEARNS}: {unknown[0]!r}, expected some of {', '.join(KNOWN)}")
    if len(set(names)) < len(names):
        raise StudyError(f"recipes.parameters.{ALSO_LEARNS} names one twice: {', '.join(names)}")
