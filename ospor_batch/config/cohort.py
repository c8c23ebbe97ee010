"""Whom a study is about: the estimand, references, match, criteria and split."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ospor_batch.config.sections import Name, Secret, Section, Share, Site


class Analysis(Section):
    """The estimand, printed first in every report."""

    target: Literal["osteoporosis", "low_bone_mass"] = "osteoporosis"
    primary_metric: Literal["auc", "sensitivity", "specificity", "pearson_r"] = "auc"
    image_dates: tuple[date, date] | None = None
    label_dates: tuple[date, date] | None = None
    ppv_prevalence: Share = 0.10
    minimum_events: Annotated[int, Field(ge=2)] = 10
    partial_auc_max_fpr: Annotated[float, Field(gt=0, lt=1)] = 0.2  # the part of the ROC curve that screening works in
    fixed_specificity: Share = 0.90
    fixed_sensitivity: Share = 0.90
    bootstrap_replicates: Annotated[int, Field(ge=0)] = 2000  # 0: no bootstrap (methods S7 asks for 2000 or more)
    linkage_warning_below: Share = 0.5


class Reference(Section):
    id: Name
    standard: Literal["dxa_who", "dxa_z", "qct", "tbs", "smi"]
    sites: tuple[Site, ...] = ("lumbar_spine", "femoral_neck", "total_hip")
    t_source: Literal["reported", "computed"] = "reported"
    t_reference: str | None = None
    t_rounding: Literal["one_decimal_half_away", "none"] = "one_decimal_half_away"
    minimum_vertebrae: Annotated[int, Field(ge=1)] = 2
    menopause_proxy_age: float = 50
    tbs_cut_offs: str = "mccloskey_2016"
    smi_cut_offs: str = "prado_2008_l3"
    compare_with: str | None = "nhanes3_white_female"  # what a recomputed T would change is shown beside a reported one
    cross_calibration: Literal["none", "genant1994", "hui1997"] = "none"  # the spine equation; off by default
    phantom_material: Literal["k2hpo4", "caha"] = "k2hpo4"  # the scale that the classes of vBMD are read on
    phantom_conversion: str = "none"

    @model_validator(mode="after")
    def _computed_needs_a_reference(self) -> Self:
        if self.t_source == "computed" and self.t_reference is None:
            raise ValueError('t_source = "computed" needs t_reference, the table that BMD is compared with')
        return self


class Match(Section):
    before_days: Annotated[int, Field(ge=0)] = 180
    after_days: Annotated[int, Field(ge=0)] = 180
    index_series: Literal["nearest", "first", "last", "random", "all"] = "nearest"
    prefer: Literal["nearest", "before_first", "after_first"] = "nearest"
    linkage: Literal["patient", "accession"] = "patient"
    label_reuse: Literal["allow", "forbid"] = "allow"  # under index_series = "all": one label for several series of a person
    prevalence_index: Literal["first", "random"] = "first"
    sensitivity_days: tuple[int, ...] = (30, 90, 180, 365)
    overrides: str | None = None

    @property
    def window(self) -> str:
        return f"from -{self.before_days} to +{self.after_days}"


class Criterion(Section):
    """A named reason to keep a series: SQL over declared columns, or a named rule."""

    name: str
    keep: str | None = None
    rule: str | None = None
    codes: tuple[str, ...] = ()  # of events, for the rules that guard against them
    within_days: Annotated[int, Field(ge=0)] | None = None
    findings: tuple[str, ...] = ()  # of series, for the rule that bars them

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.keep is None) == (self.rule is None):
            raise ValueError("give either keep (SQL) or rule (the name of a rule)")
        return self


class Split(Section):
    train: Share = 0.0
    tuning: Share = 0.0
    internal_test: Share = 1.0
    external: dict[Literal["center", "scanner_vendor", "period"], tuple[str, ...]] = {}
    site_tuning: dict[str, Share] = {}  # center -> share of its external people on whom a recalibration is fitted
    key: Secret | None = None
    shared_persons: Literal["home_center", "refuse"] = "home_center"  # people whom a crosswalk finds in two centers

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = self.train + self.tuning + self.internal_test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + tuning + internal_test is {total:g}, expected 1")
        for center, share in self.site_tuning.items():
            if not 0 < share < 1:
                raise ValueError(f"site_tuning of {center} is {share:g}, expected between 0 and 1, such as 0.3")
        return self
