"""The best that any model can reach on a generated study: what label noise and image noise leave to be known.

A perfect reader knows the body of each person and, from the image, the true density up to the image's noise. The chance of
the label given that is the Bayes score; its AUC, its F1 at the best cut and the best guess's correlation with the measured
value are ceilings. They hold for the people of the study's own population model who are examined, of 50 or older.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import rankdata

from ospor_batch.contracts.table import schema_of, whole
from ospor_batch.synthetic import latent
from ospor_batch.synthetic.labels import PRECISION, QCT_ERROR_MG_CM3, REFERENCE, TBS_ERROR, referral_chance
from ospor_batch.synthetic.latent import SITES, Bodies
from ospor_batch.synthetic.population import CenterPlan
from ospor_batch.synthetic.seeding import stream

Array = NDArray[Any]
PEOPLE = 3000  # drawn for each center
NODES = 9  # of each quadrature
# What an image leaves unknown of the mean density of L1-L4, mg/cm3. CT: noise of the mean of a thousand voxels, and beam
# hardening that differs by 1.5 HU between trunks. Radiograph: ribs, gas and vessels over the spine; both declared
IMAGE_ERROR = {"ct": 1.3, "radiograph": 18.0}
Image = Literal["ct", "radiograph"]
Standard = Literal["dxa_who", "qct"]
T_CUT, VBMD_CUT = -2.45, 80.0  # a printed T of -2.5 starts at -2.45 (methods L2); methods L7
LOW_T_CUT, LOW_VBMD_CUT, TBS_CUT = -0.95, 120.0, 1.23  # low bone mass (methods L1, L2, L7); degraded texture (methods L9)


@dataclass(frozen=True)
class RecipeLabel:
    """What a recipe of a study reads and what it is held against."""

    recipe: str
    image: Image
    standard: Standard


def ceiling_table(
    recipes: Sequence[RecipeLabel], *, plans: Sequence[CenterPlan], seed: int, is_referred_by_risk: bool = True
) -> pl.DataFrame:
    """Ceilings of each recipe, with label noise alone and with the image's noise as well.

    Recipes that read the same image and are held against the same standard have the same ceilings.
    """
    kinds = {(recipe.image, recipe.standard): recipe for recipe in recipes}
    found = {
        kind: [
            row
            for bound in ("label_noise", "label_and_image_noise")
            for row in _rows(recipe, bound, [p for p in plans if _is_read(p, recipe)], seed=seed, by_risk=is_referred_by_risk)
        ]
        for kind, recipe in kinds.items()
    }
    rows = [{"recipe": recipe.recipe, **row} for recipe in recipes for row in found[recipe.image, recipe.standard]]
    return whole(pl.DataFrame(rows, schema=schema_of("ceiling")).sort("recipe", "bound", "metric", "target"), "ceiling")


def _is_read(plan: CenterPlan, recipe: RecipeLabel) -> bool:
    return plan.exam_kind == ("qct" if recipe.standard == "qct" else "dxa")


def _rows(recipe: RecipeLabel, bound: str, plans: Sequence[CenterPlan], *, seed: int, by_risk: bool) -> list[dict[str, Any]]:
    if not plans:
        return []
    error = IMAGE_ERROR[recipe.image] if bound == "label_and_image_noise" else 0.0
    drawn = [_drawn(plan, recipe.standard, error=error, seed=seed, by_risk=by_risk) for plan in plans]
    found: dict[str, Array] = {name: np.concatenate([d[name] for d in drawn]) for name in drawn[0]}
    start: dict[str, Any] = {"image": recipe.image, "standard": recipe.standard, "bound": bound}
    return [{**start, "n_people": len(found["is_osteoporosis"]), **row} for row in bounds(found)]


def bounds(found: Mapping[str, Array]) -> list[dict[str, Any]]:
    """Metric, target, value and n_positive of every label and measured value, from the scores and best guesses of them."""
    rows: list[dict[str, Any]] = []
    for target in sorted(name.removeprefix("is_") for name in found if name.startswith("is_")):
        score, is_sick = found[f"score_{target}"], found[f"is_{target}"]
        told = {"target": target, "n_positive": int(is_sick.sum())}
        rows += [{**told, "metric": m, "value": bound_of(score, is_sick)} for m, bound_of in (("auc", _auc), ("f1", _f1))]
    for target in sorted(name.removeprefix("mean_") for name in found if name.startswith("mean_")):
        guess, measured = found[f"mean_{target}"], found[target]
        r, rho = (_pearson(x, y) for x, y in ((guess, measured), (rankdata(guess), rankdata(measured))))
        told = {"target": target, "n_positive": int(found["is_osteoporosis"].sum())}
        # ICC of agreement = 2 cov / (var + var + (mean - mean)^2) <= r, and a reader whose guesses are spread as widely as the
        # measured values reaches it
        rows += [{**told, "metric": m, "value": v} for m, v in (("pearson_r", r), ("spearman_r", rho), ("icc", r))]
    return rows


def _drawn(plan: CenterPlan, standard: Standard, *, error: float, seed: int, by_risk: bool) -> dict[str, Array]:
    """Labels of examined people of one center, the Bayes score of each, and the best guess of each measured value."""
    draw = stream(seed, "ceiling", plan.name)
    bodies = latent.draw_bodies(draw, PEOPLE, ancestry_shares=plan.ancestry_shares, share_female=plan.share_female)
    vbmd = latent.true_vbmd(bodies, shift=plan.shift_mg_cm3)
    referred = draw.random(PEOPLE) < referral_chance(bodies, log_odds=plan.referral, is_by_risk=by_risk)
    guess, spread = posterior(bodies, vbmd, plan, error=error, noise=draw.standard_normal(PEOPLE))
    kept = (bodies.age >= 50) & referred
    drawn = _qct(vbmd, draw) if standard == "qct" else _dxa(bodies, vbmd, draw)
    made = drawn | read(bodies, vbmd, guess, spread, standard)
    return {name: values[kept] for name, values in made.items()}


def posterior(bodies: Bodies, vbmd: Array, plan: CenterPlan, *, error: float, noise: Array) -> tuple[Array, float]:
    """Mean and spread of the density given what the image says of it: shrunk towards people of the same age and sex."""
    if not error:
        return vbmd, 0.0
    mean = latent.mean_vbmd(bodies.age, bodies.is_female, bodies.menopause_age) + plan.shift_mg_cm3
    keep = latent.VBMD_SD**2 / (latent.VBMD_SD**2 + error**2)
    return np.maximum(mean + keep * (vbmd + error * noise - mean), latent.VBMD_LEAST), error * float(np.sqrt(keep))


def _qct(vbmd: Array, draw: np.random.Generator) -> dict[str, Array]:
    return labels_of_qct(vbmd + QCT_ERROR_MG_CM3 * draw.standard_normal(len(vbmd)))


def _dxa(bodies: Bodies, vbmd: Array, draw: np.random.Generator) -> dict[str, Array]:
    error = _t_error()
    measured = latent.true_t(bodies, vbmd) + error * draw.standard_normal((len(vbmd), len(SITES)))
    printed = np.floor(np.abs(measured) * 10 + 0.5) / 10 * np.sign(measured)
    tbs = latent.true_tbs(bodies) + TBS_ERROR * draw.standard_normal(len(vbmd))
    return labels_of_dxa(printed, tbs)


def labels_of_qct(measured: Array) -> dict[str, Array]:
    """What a QCT in mg/cm3 says of each person."""
    return {"is_osteoporosis": measured < VBMD_CUT, "is_low_bone_mass": measured <= LOW_VBMD_CUT, "vbmd": measured}


def labels_of_dxa(printed: Array, tbs: Array) -> dict[str, Array]:
    """What printed T-scores (n, 3) by SITES and a TBS say of each person."""
    lowest = printed.min(axis=1)
    return {
        "is_osteoporosis": lowest <= -2.5, "is_low_bone_mass": lowest <= -1.0, "is_tbs_degraded": tbs <= TBS_CUT,
        "lumbar_spine_t": printed[:, 0], "tbs": tbs,
    }  # fmt: skip


def read(bodies: Bodies, vbmd: Array, guess: Array, spread: float, standard: Standard) -> dict[str, Array]:
    """Bayes scores and best guesses of a reader who knows the bodies, and the density (vbmd) as guess with its spread."""
    if standard == "qct":
        sd = np.hypot(QCT_ERROR_MG_CM3, spread)
        return {
            "score_osteoporosis": ndtr((VBMD_CUT - guess) / sd), "score_low_bone_mass": ndtr((LOW_VBMD_CUT - guess) / sd),
            "mean_vbmd": guess,
        }  # fmt: skip
    error, z = _t_error(), bodies.density_z + (guess - vbmd) / latent.VBMD_SD
    guessed_tbs = latent.expected_tbs(bodies, z)
    return {
        "score_osteoporosis": _chance_of_low_t(bodies, guess, spread, error, cut=T_CUT),
        "score_low_bone_mass": _chance_of_low_t(bodies, guess, spread, error, cut=LOW_T_CUT),
        "score_tbs_degraded": -guessed_tbs, "mean_lumbar_spine_t": latent.expected_t(bodies, guess)[:, 0],
        "mean_tbs": guessed_tbs,
    }  # fmt: skip


def _t_error() -> Array:
    """Measurement error of each site's T at a T of -2, from the in vivo CV of areal BMD."""
    found = [REFERENCE["hologic"][site] for site in SITES]
    return np.array([PRECISION[s] * (float(m) - 2 * float(sd)) / float(sd) for s, (m, sd) in zip(SITES, found, strict=True)])


def _chance_of_low_t(bodies: Bodies, guess: Array, spread: float, error: Array, *, cut: float) -> Array:
    """Chance that the lowest measured T lies below a cut: over what is unknown of the density and what the hips share."""
    nodes, weights = hermegauss(NODES)
    weights = weights / weights.sum()
    own = np.array(latent.T_OWN_SD)
    shared = np.sqrt(latent.HIPS_TOGETHER) * own[1:]
    apart = np.sqrt((1 - latent.HIPS_TOGETHER) * own[1:] ** 2 + error[1:] ** 2)
    fine = np.zeros(len(guess))
    for u, w in zip(nodes, weights, strict=True) if spread else ((0.0, 1.0),):
        mean = latent.expected_t(bodies, np.maximum(guess + spread * u, latent.VBMD_LEAST))
        spine = ndtr((mean[:, 0] - cut) / np.hypot(own[0], error[0]))
        for h, v in zip(nodes, weights, strict=True):
            hips = ndtr((mean[:, 1:] + shared * h - cut) / apart).prod(axis=1)
            fine += w * v * spine * hips
    return 1 - fine


def _pearson(x: Array, y: Array) -> float | None:
    """Null where one does not vary."""
    return float(np.corrcoef(x, y)[0, 1]) if len(x) > 1 and x.std() and y.std() else None


def _auc(score: Array, is_sick: Array) -> float | None:
    """Null where one class is missing."""
    n1, n0 = int(is_sick.sum()), int((~is_sick).sum())
    if not n1 or not n0:
        return None
    return float((rankdata(score)[is_sick].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def _f1(score: Array, is_sick: Array) -> float | None:
    """F1 at the cut that makes it highest, which only someone with the labels can choose; null where one class is missing."""
    if not is_sick.any() or is_sick.all():
        return None
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(is_sick[order])
    return float((2 * hits / (np.arange(1, len(order) + 1) + hits[-1])).max())
