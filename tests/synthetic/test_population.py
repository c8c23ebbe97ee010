"""The people: what age, sex, center and chance make of them, and that the declared shares come out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospor_batch.synthetic import latent
from ospor_batch.synthetic.archive import FIRST_NIGHT
from ospor_batch.synthetic.labels import exams_of, vbmd_at
from ospor_batch.synthetic.latent import draw_bodies
from ospor_batch.synthetic.population import CENTERS, CenterPlan, Rates, people, shift_for

PLAIN = Rates(0, 0, 0, 0)
MANY = 30_000


@pytest.fixture(scope="module")
def bodies() -> latent.Bodies:
    return draw_bodies(np.random.default_rng(5), MANY, ancestry_shares=(1.0, 0.0, 0.0))


def test_density_falls_with_age_and_faster_after_the_menopause() -> None:
    ages = np.arange(42.0, 90.0)
    women = latent.mean_vbmd(ages, np.ones(len(ages), bool), np.full(len(ages), 50.0))
    men = latent.mean_vbmd(ages, np.zeros(len(ages), bool), np.full(len(ages), 50.0))
    assert (np.diff(women) < 0).all()
    assert (np.diff(men) < 0).all()
    loss = -np.diff(women)
    assert loss[ages[:-1] < 49].max() < loss[(ages[:-1] > 50) & (ages[:-1] < 57)].min()
    assert women[0] > men[0], "women start higher"
    assert women[-1] < men[-1], "and end lower"


def test_age_and_sex_explain_as_much_as_the_published_table_says(bodies: latent.Bodies) -> None:
    """Aims that stand in latent.py, with a width for what a model of a few numbers can meet."""
    t = latent.true_t(bodies, latent.true_vbmd(bodies, shift=0.0))
    old_women = bodies.is_female & (bodies.age >= 50)
    r = np.corrcoef(t[old_women].T)
    assert 0.5 < r[0, 1] < 0.7
    assert 0.5 < r[0, 2] < 0.7
    assert 0.8 < r[1, 2] < 0.95
    near_65 = old_women & (np.abs(bodies.age - 65) < 2)
    assert t[near_65].mean(axis=0) == pytest.approx([-1.1, -1.8, -1.2], abs=0.25)
    assert np.corrcoef(latent.true_tbs(bodies)[old_women], t[old_women, 0])[0, 1] == pytest.approx(0.42, abs=0.12)


@pytest.mark.parametrize("plan", CENTERS, ids=lambda plan: plan.name)
def test_prevalence_of_a_center_is_the_declared_one(plan: CenterPlan) -> None:
    drawn = draw_bodies(np.random.default_rng(17), MANY, ancestry_shares=plan.ancestry_shares)
    vbmd = latent.true_vbmd(drawn, shift=plan.shift_mg_cm3)
    sick = vbmd < 80 if plan.exam_kind == "qct" else latent.true_t(drawn, vbmd).min(axis=1) < -2.45
    found = sick[drawn.age >= 50].mean()
    assert plan.prevalence is not None
    assert found == pytest.approx(plan.prevalence, abs=0.025)  # both sides are samples of thousands


@given(st.floats(0.05, 0.6), st.floats(0.05, 0.6), st.sampled_from(["dxa", "qct"]))
@settings(max_examples=15, deadline=None)
def test_more_disease_needs_less_bone(one: float, other: float, kind: str) -> None:
    low, high = sorted([round(one, 2), round(other, 2)])
    shares = (1.0, 0.0, 0.0)
    assert shift_for(low, exam_kind=kind, ancestry_shares=shares) >= shift_for(high, exam_kind=kind, ancestry_shares=shares)


def test_fractures_take_height_and_follow_density() -> None:
    everyone = people("south", range(1000, 3000), seed=11, night=2, rates=PLAIN)
    broken = np.array([bool(p.fractures) for p in everyone])
    vbmd = np.array([p.vbmd_mg_cm3 for p in everyone])
    assert 0.02 < broken.mean() < 0.35
    assert vbmd[broken].mean() < vbmd[~broken].mean() - 10
    person = next(p for p in everyone if len(p.fractures) >= 2)
    whole = people("south", range(person.number, person.number + 1), seed=11, night=2, rates=replace(PLAIN, fracture=0.0))[0]
    assert not whole.fractures
    assert whole.height_m > person.height_m
    assert whole.vbmd_mg_cm3 == person.vbmd_mg_cm3, "fractures have a stream of their own"


def test_menopause_is_known_of_women_alone() -> None:
    everyone = people("north", range(1000, 1200), seed=11, night=2, rates=PLAIN)
    assert {p.menopause_age is None for p in everyone if p.sex == "male"} == {True}
    assert {p.menopause_age is None for p in everyone if p.sex == "female"} == {False}
    assert {p.is_postmenopausal for p in everyone if p.sex == "male"} == {None}


def test_muscle_differs_by_sex_and_falls_with_age(bodies: latent.Bodies) -> None:
    smi = latent.smi(bodies)
    assert smi[~bodies.is_female].mean() > smi[bodies.is_female].mean() + 8
    assert np.corrcoef(bodies.age, smi - np.where(bodies.is_female, 41, 52))[0, 1] < -0.1


def test_referral_by_risk_can_be_switched_off() -> None:
    by_risk = people("south", range(1000, 2500), seed=11, night=2, rates=PLAIN)
    by_chance = people("south", range(1000, 2500), seed=11, night=2, rates=replace(PLAIN, is_referred_by_risk=False))
    gaps = []
    for group in (by_risk, by_chance):
        sent = np.array([bool(exams_of(p)) for p in group])
        z = np.array([p.density_z for p in group])
        gaps.append(z[~sent].mean() - z[sent].mean())
    assert gaps[0] > 0.3
    assert abs(gaps[1]) < 0.15


def test_repeated_exams_follow_the_loss_of_years() -> None:
    everyone = people("north", range(1000, 1600), seed=11, night=2, rates=PLAIN)
    repeated = [exams for p in everyone if len(exams := exams_of(p)) >= 2]
    assert any(len(exams) == 3 for exams in repeated)
    assert max(exam.exam_date for exams in repeated for exam in exams) < FIRST_NIGHT.date(), "no export knows the future"
    gaps = sorted(exam.gap_days for exams in repeated for exam in exams)
    assert gaps[0] < -270 < 270 < gaps[-1], "repeats lie before and after, outside every window"
    change = [float(exams[-1].t["total_hip"] - exams[0].t["total_hip"]) for exams in repeated]
    assert np.mean(change) < 0
    person = repeated[0][0].person
    assert vbmd_at(person, gap_days=3650) < vbmd_at(person, gap_days=0) == person.vbmd_mg_cm3
