"""Hold finished runs on generated studies against their ceilings: python benchmarks/ceilings.py STUDY... [--json FILE]

STUDY: study files of generated folders (`ospor-batch synth`), each with a complete run. One row for each recipe, metric and
partition: published figure, ceiling of the population model at the centers tested, ceiling of the very people tested (drawn
anew from generated.json, as they were when the images were made), reached with interval and n, and the shares of both.
Both ceilings know the error that is declared of an image; `exact` is that of the people tested with none.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ospor_batch.config import Recipe, Study, read_key, read_study
from ospor_batch.errors import StudyError
from ospor_batch.evaluation.published import FIGURES
from ospor_batch.pseudonym import normal_patient_id, pseudonym
from ospor_batch.runs import Run, latest_run
from ospor_batch.stages.trace import trace
from ospor_batch.store import Store
from ospor_batch.synthetic.archive import RECORD, Night, people_of
from ospor_batch.synthetic.ceiling import RecipeLabel, Standard, ceiling_table
from ospor_batch.synthetic.ceiling_of_people import Labelled, OwnCeiling, own_ceilings
from ospor_batch.synthetic.labels import exams_of, matched
from ospor_batch.synthetic.population import Person, center_plan
from ospor_batch.synthetic.presets import OF_RADIOGRAPHS, Size, sizes_of

PARTITIONS = ("internal_test", "external")
AIM = 0.95
Everyone = dict[tuple[str, str], Person]  # by center and patient number
# The table and metric of a run, and the same of ceiling.parquet with its target, for each recipe and unit of its value
Metric = tuple[str, str, str, str]
AUC: Metric = ("performance", "auc", "auc", "osteoporosis")
VBMD: tuple[Metric, ...] = (
    ("agreement", "pearson_r", "pearson_r", "vbmd"), ("agreement", "spearman_rho", "spearman_r", "vbmd"),
)  # fmt: skip
MAIN: dict[tuple[str, str], tuple[Metric, ...]] = {
    ("cxr_osteoporosis", "probability"): (AUC,),
    ("ct_cnn_smi", "probability"): (AUC,),
    ("ct_bmd_tbs", "g/cm2"): (("agreement", "pearson_r", "pearson_r", "lumbar_spine_t"),),
    ("ct_bmd_tbs", "tbs"): (("agreement", "pearson_r", "pearson_r", "tbs"),),
    ("ct_qct_bmd", "mg/cm3"): VBMD[:1],
    ("ldct_internal_calibration", "mg/cm3"): VBMD,
}


@dataclass(frozen=True)
class Held:
    """One recipe, metric and partition of a run beside its ceilings; null where a figure is not estimable."""

    recipe: str
    partition: str
    metric: str
    target: str
    published: str
    population: float | None
    own: float | None
    own_sd: float | None
    own_exact: float | None
    reached: float | None
    lower: float | None
    upper: float | None
    n_persons: int
    n_train: int | None

    @property
    def of_population(self) -> float | None:
        return self.reached / self.population if self.reached is not None and self.population else None

    @property
    def of_own(self) -> float | None:
        return self.reached / self.own if self.reached is not None and self.own else None


def held(path: Path) -> Iterator[Held]:
    """Every main figure of a study's latest run; StudyError where it has no complete run."""
    study = read_study(path)
    run = latest_run(Store(study.workspace))
    if run is None or not run.is_complete:
        raise StudyError(f"{path}: no complete run; `ospor-batch run` makes one")
    size, everyone = generated(path.parent)
    for recipe in study.recipes:
        if recipe.substudy_of is not None:
            continue
        for metric in MAIN.get((recipe.name, _unit(run, recipe)), ()):
            for partition in PARTITIONS:
                row = _row(run, recipe, metric=metric, partition=partition)
                if row is not None:
                    yield _held(study, run, recipe, row=row, metric=metric, size=size, everyone=everyone)


def generated(folder: Path) -> tuple[Size, Everyone]:
    """The size of a generated folder, and everyone in it by center and patient number."""
    told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    nights = [
        Night(night["number"], night["seed"], {center: (first, n) for center, (first, n) in night["numbers"].items()})
        for night in told["nights"]
    ]
    sizes = sizes_of(told["preset"], factor=told.get("factor", 1.0))
    size = next(size for size in sizes if size.counts.keys() == nights[0].numbers.keys())
    people = people_of(nights, rates=size.rates, is_planted=size.is_planted)
    return size, {(p.center, normal_patient_id(p.patient_id) or ""): p for p in people}


def _unit(run: Run, recipe: Recipe) -> str:
    rows = run.read("agreement", under="tables").filter(recipe=recipe.key)
    return str(rows["predicted_value_unit"][0]) if rows.height else "probability"


def _row(run: Run, recipe: Recipe, *, metric: Metric, partition: str) -> dict[str, Any] | None:
    table, name, _, _ = metric
    found = run.read(table, under="tables").filter(
        recipe=recipe.key, reference_id=recipe.reference, metric=name, partition=partition, unit="person", stratum="overall",
        is_same_acquisition="all",
    )  # fmt: skip
    return found.to_dicts()[0] if found.height else None


def _held(
    study: Study, run: Run, recipe: Recipe, *, row: dict[str, Any], metric: Metric, size: Size, everyone: Everyone
) -> Held:
    table, name, bound, target = metric
    standard: Standard = "qct" if study.reference(recipe.reference).standard == "qct" else "dxa_who"
    of = RecipeLabel(recipe.key, "radiograph" if recipe.name in OF_RADIOGRAPHS else "ct", standard)
    tested = _tested(study, run, table=table, row=row, everyone=everyone, standard=standard)
    seed = next(iter(everyone.values())).seed
    own = {(one.metric, one.target): one for one in own_ceilings(tested, image=of.image, standard=standard, seed=seed)}
    mine = own.get((bound, target), OwnCeiling(bound, target, None, None, None, 0, 0))
    trained = run.read("model").filter(recipe=recipe.key)["n_train"].to_list() if run.has("model") else []
    return Held(
        recipe.key, row["partition"], name, target, _published(recipe, name, row),
        _of_population(of, metric=metric, centers={person.center for person, _ in tested}, size=size, seed=seed),
        mine.value, mine.sd, mine.exact, row["estimate"], row["estimate_lower"], row["estimate_upper"], row["n_persons"],
        trained[0] if trained else None,
    )  # fmt: skip


def _of_population(of: RecipeLabel, *, metric: Metric, centers: set[str], size: Size, seed: int) -> float | None:
    """The ceiling of 3,000 people of each center that was tested; ceiling.parquet holds that of all centers together."""
    plans = [center_plan(center) for center in sorted(centers)]
    rows = ceiling_table([of], plans=plans, seed=seed, is_referred_by_risk=size.rates.is_referred_by_risk)
    found = rows.filter(bound="label_and_image_noise", metric=metric[2], target=metric[3])["value"].to_list()
    return found[0] if found else None


def _tested(
    study: Study, run: Run, *, table: str, row: dict[str, Any], everyone: Everyone, standard: Standard
) -> list[Labelled]:
    """The people behind a figure with the exam that each is held against; they must be as many as the table says."""
    named = {
        key: row[key] for key in ("recipe", "reference_id", "partition", "metric", "stratum", "unit", "is_same_acquisition")
    }
    cell = ",".join(["n_persons", *(f"{key}={value}" for key, value in named.items())])
    keys = set(trace(run.folder, table, cell=cell).keys["patient_key"])
    secret = read_key(study)
    found = []
    for (center, number), person in everyone.items():
        if pseudonym(number, kind="patient", issuer=center, key=secret) in keys:
            exam = matched([e for e in exams_of(person) if (bool(e.t) if standard == "dxa_who" else e.vbmd_mg_cm3 is not None)])
            if exam is not None:
                found.append((person, exam))
    if len(found) != row["n_persons"]:
        raise StudyError(f"{row['recipe']}: {row['n_persons']} people tested, {len(found)} of them are generated ones")
    return found


def _published(recipe: Recipe, metric: str, row: dict[str, Any]) -> str:
    kind = "external" if row["partition"] == "external" else ("internal", "test")
    unit = row.get("predicted_value_unit")
    fits = [f for f in FIGURES.get(recipe.name, ()) if f.metric == metric and f.unit in {None, unit}]
    mine = [f for f in fits if f.people.startswith(kind)] or [
        f for f in fits if not f.people.startswith(("train", "internal", "external"))
    ]
    said = [f"{f.value:g}" + (f" ({f.lower:g} to {f.upper:g})" if f.lower is not None else "") for f in mine]
    return ", ".join(said) or "not stated"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value >= AIM else f"**{value:.2f}**"


def markdown(rows: list[Held]) -> str:
    """Markdown; shares below the aim in bold."""
    heads = (
        "Recipe, people", "Metric", "Published", "Ceiling", "Ceiling of these people", "Reached", "Share", "of their own",
        "n (learned from)",
    )  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for r in rows:
        own = f"{_number(r.own)} (SD {_number(r.own_sd)}; exact {_number(r.own_exact)})"
        reached = f"{_number(r.reached)} ({_number(r.lower)} to {_number(r.upper)})"
        cells = (
            f"`{r.recipe}`, {r.partition}", f"{r.metric}, {r.target}", r.published, _number(r.population), own, reached,
            _share(r.of_population), _share(r.of_own), f"{r.n_persons} ({'-' if r.n_train is None else r.n_train})",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = [row for path in asked.studies for row in held(path)]
    print(markdown(rows))
    if asked.json:
        told = [{**asdict(r), "share": r.of_population, "share_of_own": r.of_own} for r in rows]
        asked.json.write_text(json.dumps(told, indent=1) + os.linesep)


if __name__ == "__main__":
    main()
