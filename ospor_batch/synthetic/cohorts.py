"""The published cohorts as plans: centers, sizes, vendors, dates and prevalences; what was not published is declared here.

Marks: S stated in the publication, D deduced from it, ? not stated and therefore declared. Names of centers are invented.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from ospor_batch.synthetic.population import CenterPlan, Manner

THREE_VENDORS = (("ge", 0.4), ("siemens", 0.35), ("philips", 0.25))  # ?
EVERYONE = 9.0  # log odds of an examination: who is in the cohort has one


@dataclass(frozen=True)
class Member:
    """One center of a cohort and how many people it gives."""

    plan: CenterPlan
    n_people: int
    is_external: bool = False


@dataclass(frozen=True)
class Cohort:
    """One published cohort."""

    recipe: str
    image: Literal["ct", "radiograph"]
    members: tuple[Member, ...]
    reference: Literal["dxa", "qct"]
    train: float
    tuning: float

    @property
    def image_dates(self) -> tuple[date, date]:
        dates = [member.plan.image_dates for member in self.members]
        return min(first for first, _ in dates), max(last for _, last in dates)


def _center(
    name: str, manner: Manner, dates: tuple[date, date], *, prevalence: float, kind: Literal["dxa", "qct"] = "dxa",
    vendors: tuple[tuple[str, float], ...] = THREE_VENDORS, share_female: float = 0.62, least_age: float = 50.0,
) -> CenterPlan:  # fmt: skip
    script: Literal["latin", "korean", "chinese"] = (
        "chinese" if manner == "west" else "latin" if manner == "north" else "korean"
    )
    return CenterPlan(
        name, vendors, 0.0, EVERYONE, script, kind, prevalence, manner=manner, image_dates=dates,
        share_female=share_female, least_age=least_age,
    )  # fmt: skip


_Y2022 = (date(2022, 1, 1), date(2022, 12, 31))
_S4 = (date(2018, 3, 1), date(2020, 5, 31))
_S5 = (date(2018, 6, 1), date(2019, 12, 31))

PAPER_CXR: tuple[Cohort, ...] = (
    Cohort(
        # 13,026 pairs of one screening center 2012-2019 [S]; women 83.9 %, prevalence 33.3 %, over 50 [relative, D];
        # 1,089 radiographs of a cohort of "2010 and 2017" [S], read as those years and all between; its prevalence is [?]
        recipe="cxr_osteoporosis", image="radiograph", reference="dxa", train=0.747, tuning=0.10,
        members=(
            Member(_center("screening", "south", (date(2012, 1, 1), date(2019, 12, 31)), prevalence=0.333, share_female=0.839),
                   13026),
            Member(_center("referral", "east", (date(2010, 1, 1), date(2017, 12, 31)), prevalence=0.45, share_female=0.90),
                   1089, is_external=True),
        ),
    ),
)  # fmt: skip
PAPER_CT: tuple[Cohort, ...] = (
    Cohort(
        # four hospitals, both exams within 2022, 581 to train and 229 / 198 / 118 outside [S]; vendors, prevalence [?]
        recipe="ct_cnn_smi", image="ct", reference="dxa", train=0.85, tuning=0.15,
        members=(
            Member(_center("hospital_a", "north", _Y2022, prevalence=0.35), 581),
            Member(_center("hospital_b", "south", _Y2022, prevalence=0.38, vendors=(("siemens", 1.0),)), 229, is_external=True),
            Member(_center("hospital_c", "east", _Y2022, prevalence=0.33, vendors=(("philips", 1.0),)), 198, is_external=True),
            Member(_center("hospital_d", "north", _Y2022, prevalence=0.36, vendors=(("ge", 1.0),)), 118, is_external=True),
        ),
    ),
    Cohort(
        # 402 people with DXA and TBS, several vendors, 280 / 70 / 52 [S]; dates, window, prevalence [?]
        recipe="ct_bmd_tbs", image="ct", reference="dxa", train=280 / 402, tuning=70 / 402,
        members=(Member(_center("spine_clinic", "north", (date(2016, 1, 1), date(2020, 12, 31)), prevalence=0.30), 402),),
    ),
    Cohort(
        # March 2018 to May 2020, 586 to train, test sets by vendor 463 / 200 / 200 [S]; which vendors, prevalence [?]
        recipe="ct_qct_bmd", image="ct", reference="qct", train=0.85, tuning=0.15,
        members=(
            Member(_center("qct_train", "west", _S4, prevalence=0.25, kind="qct"), 586),
            Member(_center("qct_ge", "west", _S4, prevalence=0.25, kind="qct", vendors=(("ge", 1.0),)), 463, is_external=True),
            Member(_center("qct_siemens", "west", _S4, prevalence=0.25, kind="qct", vendors=(("siemens", 1.0),)), 200,
                   is_external=True),
            Member(_center("qct_philips", "west", _S4, prevalence=0.25, kind="qct", vendors=(("philips", 1.0),)), 200,
                   is_external=True),
        ),
    ),
    Cohort(
        # 1,406 of one check-up center, June 2018 to December 2019, 985 / 421 at random; 80 + 38 have osteoporosis by QCT [S, D]
        recipe="ldct_internal_calibration", image="ct", reference="qct", train=985 / 1406, tuning=0.0,
        members=(Member(_center("check_up", "west", _S5, prevalence=118 / 1406, kind="qct", vendors=(("canon", 1.0),),
                                share_female=0.5), 1406),),
    ),
)  # fmt: skip
COHORT_CENTERS: tuple[CenterPlan, ...] = tuple(m.plan for cohort in (*PAPER_CXR, *PAPER_CT) for m in cohort.members)
