"""The presets: which studies are generated, how large, how fine, and with which rates of what goes wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ospor_batch.errors import StudyError
from ospor_batch.synthetic.ceiling import RecipeLabel, Standard
from ospor_batch.synthetic.cohorts import PAPER_CT, PAPER_CXR, Cohort
from ospor_batch.synthetic.ct import Sampling
from ospor_batch.synthetic.patient_files import BesideRates, Detail
from ospor_batch.synthetic.phantom import PHANTOMS
from ospor_batch.synthetic.population import CENTERS, Rates
from ospor_batch.synthetic.recipe_texts import phantom_text, recipe_text
from ospor_batch.synthetic.study_file import cohort_study, four_center_study
from ospor_batch.synthetic.tag_faults import USUAL

Preset = Literal["tiny", "demo", "paper-cxr", "paper-ct", "scale"]
FACTORS = (0.001, 10.0)  # share of a published cohort's people; 10 for those who test larger ones
FILES = 1_000_000
OF_RADIOGRAPHS = frozenset({"cxr_osteoporosis"})
RECIPES = ("cxr_osteoporosis", "ct_cnn_smi", "ct_bmd_tbs", "ct_qct_bmd", "ldct_internal_calibration")


@dataclass(frozen=True)
class Size:
    """One study of a preset.

    name: its folder below the output where a preset holds several. counts: people by center. is_header_only: files
    without pixels. is_planted: whether the faults are planted.
    """

    counts: Mapping[str, int]
    detail: Detail
    rates: Rates
    tuning: float
    cluster: str
    train: float = 0.0
    recipes: tuple[str, ...] = ()  # published recipes of study.toml beside mean HU
    name: str = ""
    cohort: Cohort | None = None
    is_header_only: bool = False
    is_planted: bool = True
    n_files: int = 0
    words: Mapping[str, float] = field(default_factory=dict)  # what was asked for beside preset and seed

    @property
    def per_center(self) -> int:
        """People of the largest center."""
        return max(self.counts.values())

    @property
    def recipe_labels(self) -> tuple[RecipeLabel, ...]:
        """What each recipe of the study files reads and is held against; the one that the truth is told for comes first."""
        texts = [self.study_text(preset="", seed=0), self.all_recipes_text(preset="", seed=0)]
        found = [_labels_of(tomllib.loads(text)) for text in texts if text is not None]
        return tuple({label.recipe: label for labels in found for label in labels}.values())

    def study_text(self, *, preset: str, seed: int) -> str:
        """The study file."""
        title = f"generated-{preset}" + (f"-{self.name.replace('_', '-')}" if self.name else "")
        if self.cohort is not None:
            is_small = self.words.get("factor", 1.0) < 1
            return cohort_study(self.cohort, name=title, seed=seed, cluster=self.cluster, is_small=is_small)
        return self._four_centers(title, self.recipes, train=self.train, tuning=self.tuning, seed=seed)

    def all_recipes_text(self, *, preset: str, seed: int) -> str | None:
        """A second study file with the five published recipes; null where the study is for one, or has no pixels."""
        if self.cohort is not None or self.is_header_only:
            return None
        return self._four_centers(f"generated-{preset}-recipes", RECIPES, train=0.5, tuning=0.2, seed=seed)

    def _four_centers(self, title: str, recipes: Sequence[str], *, train: float, tuning: float, seed: int) -> str:
        is_all = tuple(recipes) == RECIPES
        texts = "\n".join(recipe_text(name, is_small=True, with_substudies=is_all) for name in recipes)
        if is_all and self.rates.phantom:
            phantom = PHANTOMS["k2hpo4"]
            texts += f"\n{phantom_text(phantom.rods, material=phantom.material)}"
        return four_center_study(
            name=title, seed=seed, train=train, tuning=tuning, cluster=self.cluster, recipes=f"{texts}\n" if texts else ""
        )


def _labels_of(study: Mapping[str, Any]) -> list[RecipeLabel]:
    """Recipes by their key; a substudy has the ceiling of its recipe."""
    # TBS is printed by the same exam, and its ceilings stand among those of DXA
    standards: dict[str, Standard] = {
        one["id"]: "qct" if one["standard"] == "qct" else "dxa_who" for one in study["references"]
    }
    return [
        RecipeLabel(
            recipe.get("id", recipe["name"]), "radiograph" if recipe["name"] in OF_RADIOGRAPHS else "ct",
            standards[recipe["reference"]],
        )
        for recipe in study["recipes"]
    ]  # fmt: skip


def _of_four(n: int) -> dict[str, int]:
    return {center.name: n for center in CENTERS}


PRESETS: dict[str, Size] = {
    "tiny": Size(_of_four(12), Detail(Sampling(64), 96), Rates(0.0, 0.0, 0.0, 0.15), tuning=0.5, cluster="in_line"),
    "demo": Size(
        _of_four(60),
        Detail(Sampling(80), 192, USUAL, BesideRates(0.5, 0.15, 0.3, 0.2, 0.08, lateral=0.3, antero_posterior=0.15)),
        Rates(0.06, 0.05, 0.08, 0.6, implant=0.03, motion=0.04, tilt=0.05, phantom=0.6), tuning=0.2, cluster="local",
        train=0.4, recipes=("cxr_osteoporosis", "ldct_internal_calibration"),
    ),
}  # fmt: skip
PAPER = Detail(Sampling(128), 256, tags=USUAL, beside=BesideRates(0.5, 0.1, 0.3, 0.2, 0.05, lateral=0.1))
SCALE = Detail(Sampling(512), 2048, tags=USUAL, beside=BesideRates(0.9, 0.0, 0.5, 0.0, 0.0, antero_posterior=0.15))


def sizes_of(preset: str, *, factor: float = 1.0, n_files: int = FILES, study: str | None = None) -> tuple[Size, ...]:
    """The studies of a preset, or the one named; factor reduces the published cohorts, n_files is the size of `scale`."""
    sizes = _sizes_of(preset, factor=factor, n_files=n_files)
    if study is None:
        return sizes
    named = {size.name: size for size in sizes if size.name}
    if not named:
        raise StudyError(f"study {study!r}: preset {preset} is a single study; leave the option out")
    if study not in named:
        raise StudyError(f"study {study!r}: preset {preset} has {', '.join(named)}")
    return (named[study],)


def _sizes_of(preset: str, *, factor: float, n_files: int) -> tuple[Size, ...]:
    if preset not in get_args(Preset):
        raise StudyError(f"no preset named {preset!r}; there are {', '.join(get_args(Preset))}")
    if not FACTORS[0] <= factor <= FACTORS[1]:
        raise StudyError(f"factor {factor:g}: expected {FACTORS[0]:g} to {FACTORS[1]:g}")
    if n_files < 1:
        raise StudyError(f"files {n_files}: expected 1 or more")
    if preset in PRESETS:
        return (PRESETS[preset],)
    if preset == "scale":
        rates = Rates(0.25, 0.15, 0.0, 0.30, tilt=0.05)
        return (Size(_of_four(0), SCALE, rates, tuning=0.3, cluster="local", is_header_only=True, is_planted=False,
                     n_files=n_files, words={"files": n_files}),)  # fmt: skip
    cohorts = PAPER_CXR if preset == "paper-cxr" else PAPER_CT
    return tuple(_paper(cohort, factor, is_alone=len(cohorts) == 1) for cohort in cohorts)


def _paper(cohort: Cohort, factor: float, *, is_alone: bool) -> Size:
    """A published cohort: everyone is examined and eligible, so that the pairs are as many as were published."""
    is_radiograph = cohort.image == "radiograph"
    rates = Rates(0.0, 0.0, float(is_radiograph), 0.0, is_referred_by_risk=False)
    counts = {member.plan.name: max(2, round(member.n_people * factor)) for member in cohort.members}
    return Size(counts, PAPER, rates, tuning=cohort.tuning, cluster="local", name="" if is_alone else cohort.recipe,
                cohort=cohort, is_planted=False, words={"factor": factor})  # fmt: skip
