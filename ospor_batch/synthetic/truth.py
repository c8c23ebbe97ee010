"""What is true of each generated person and what must become of them under the first reference of their study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ospor_batch.contracts.table import schema_of, whole
from ospor_batch.pseudonym import normal_patient_id
from ospor_batch.synthetic.ceiling import VBMD_CUT, Image, Standard
from ospor_batch.synthetic.ct import expected_hu
from ospor_batch.synthetic.faults import ENHANCED, NO_FAULT, NOT_A_RADIOGRAPH, NOT_CT, OTHER_KVP, TOO_YOUNG, Role, fault
from ospor_batch.synthetic.labels import Exam, exams_of, matched
from ospor_batch.synthetic.phantom import is_cut, phantoms_of
from ospor_batch.synthetic.population import Person


@dataclass(frozen=True)
class Fate:
    """Role in the manifest, the step that an excluded person leaves at, the exam that must match."""

    role: Role
    step: str | None = None
    exam: Exam | None = None
    is_predicted: bool = False


def truth_table(people: Sequence[Person], *, image: Image = "ct", standard: Standard = "dxa_who") -> pl.DataFrame:
    """The truth as a table; one row a person, by center and patient. What the study reads and holds it against is given."""
    rows = [_row(person, image=image, standard=standard) for person in people]
    return whole(pl.DataFrame(rows, schema=schema_of("truth")).sort("center", "patient_id"), "truth")


def fate_of(person: Person, *, image: Image = "ct", standard: Standard = "dxa_who") -> Fate:
    """What must become of a person; the first step in the order of the attrition table decides."""
    if person.fault != NO_FAULT:
        planted = fault(person.fault)
        exam = _label_of(person, standard) if planted.role == "paired" else None
        return Fate(planted.role, planted.step, exam, planted.is_predicted)
    for step, leaves in (
        (NOT_CT, image == "ct" and not person.is_ct),
        (NOT_A_RADIOGRAPH, image == "radiograph" and not person.is_radiograph),
        (TOO_YOUNG, person.age_at_image < 50),
        (ENHANCED, image == "ct" and person.is_contrast),
        (OTHER_KVP, image == "ct" and person.kvp_kv != 120),
    ):
        if leaves:
            return Fate("excluded", step)
    exam = _label_of(person, standard)
    return Fate("paired" if exam else "image_only", None, exam, is_predicted=True)


def _label_of(person: Person, standard: Standard) -> Exam | None:
    """The exam that must be matched under a reference."""
    return matched([e for e in exams_of(person) if (bool(e.t) if standard == "dxa_who" else e.vbmd_mg_cm3 is not None)])


def _is_sick(exam: Exam) -> bool:
    """Osteoporosis by the exam: the lowest T where it has any, else vBMD below 80 mg/cm3 (methods L7)."""
    return exam.is_osteoporosis if exam.t else exam.vbmd_mg_cm3 is not None and float(exam.vbmd_mg_cm3) < VBMD_CUT


def _row(person: Person, *, image: Image, standard: Standard) -> dict[str, Any]:
    fate = fate_of(person, image=image, standard=standard)
    qct = matched([exam for exam in exams_of(person) if exam.vbmd_mg_cm3 is not None]) if fate.role != "excluded" else None
    is_plain = person.is_ct and not person.is_contrast
    return {
        "center": person.center,
        "patient_id": normal_patient_id(person.patient_id),
        "sex": person.sex,
        "age_at_image": round(person.age_at_image, 4),
        "vbmd_mg_cm3": person.vbmd_mg_cm3,
        "expected_mean_hu": round(expected_hu(person.vbmd_mg_cm3, kvp_kv=person.kvp_kv), 4) if is_plain else None,
        "kvp_kv": float(person.kvp_kv) if person.is_ct else None,
        "lowest_t": float(fate.exam.lowest_t) if fate.exam and fate.exam.t else None,
        "is_osteoporosis": _is_sick(fate.exam) if fate.exam else None,
        "fault": person.fault,
        "expected_role": fate.role,
        "expected_step": fate.step,
        "expected_gap_days": fate.exam.gap_days if fate.exam else None,
        "expected_prediction": fate.is_predicted,
        "scanner_vendor": person.vendor if person.is_ct else None,
        "qct_vbmd_mg_cm3": float(qct.vbmd_mg_cm3) if qct and qct.vbmd_mg_cm3 is not None else None,
        "night": person.night,
        "tilt_deg": person.tilt_deg if person.is_ct else None,
        "motion_mm": person.motion_mm if person.is_ct else None,
        "implant": person.implant,
        **_phantom(person),
    }


def _phantom(person: Person) -> dict[str, Any]:
    """The calibration phantom in the CT; of several the first."""
    found = phantoms_of(person)
    first = found[0] if found else None
    return {
        "has_phantom": bool(found) if person.is_ct else None,
        "phantom_material": first and first.material,
        "phantom_rods": first and "; ".join(first.rods),
        "is_phantom_cut": is_cut(person) if found else None,
    }
