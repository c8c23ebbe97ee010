"""bfloat16 against float32 over whole studies: python benchmarks/precision_study.py WORKSPACE --studies FOLDER... [--json FILE]

Every trained network of a workspace predicts every series of other studies, through the engine, once in each precision: the
largest difference of a value, and how many decisions at the locked threshold stay, with Wilson's interval. WORKSPACE: of a
study that was run here, such as `ospor-batch demo --all` leaves. FOLDER: made by `ospor-batch synth FOLDER --preset demo
--seed N`; a study file and a workspace are put into it, and a second call computes only what is missing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import polars as pl
from agreement import compared, in_words

from ospor_batch.cli import app
from ospor_batch.config import read_study
from ospor_batch.evaluation.intervals import proportion
from ospor_batch.models.bundle import read_spec
from ospor_batch.models.registry import kind_of
from ospor_batch.models.trainable import NetworkLearner
from ospor_batch.stages.specs import declared_spec

PRECISIONS = ("float32", "bfloat16")
STEPS = ("crawl", "catalog", "label", "match", "infer")
STUDY = "precision.toml"
# the study as it is generated, up to whom it takes and what it runs: one criterion, nobody trained on
REST = """
[[criteria]]
name = "age 50 or older"
keep = "age_at_image >= 50"

[split]
internal_test = 1.0

[compute.cpu]
cluster = "in_line"

[sweep]
settle_minutes = 0
"""
RECIPE = """
[[recipes]]
name = "{name}"
id = "{key}"
reference = "{reference}"
model = "{folder}"
threshold = {{ fixed = 0.5 }}
[recipes.parameters]
precision = "{precision}"
"""


def networks(workspace: Path) -> dict[str, dict[str, Any]]:
    """What the workspace's networks say of themselves, by the digest that names their folder."""
    found = {}
    for folder in sorted((workspace / "models").iterdir()):
        said = read_spec(folder) if (folder / "spec.json").is_file() else {"recipe": ""}
        trains = kind_of(said["recipe"]).trains if said["recipe"] else None
        if trains is not None and isinstance(trains.learner, NetworkLearner):
            found[folder.name] = said
    return found


def predicted(study: Path, workspace: Path, models: dict[str, dict[str, Any]]) -> dict[str, pl.DataFrame]:
    """Predictions of a study by model and precision."""
    text = (study / "study.toml").read_text().partition("[[criteria]]")[0].replace('"workspace"', '"precision"') + REST
    for digest, said in models.items():
        of = "qct_spine" if said["recipe"] == "ct_qct_bmd" else "dxa_any_site"
        for precision in PRECISIONS:
            text += RECIPE.format(
                name=said["recipe"], key=f"{digest}_{precision}", reference=of, precision=precision,
                folder=(workspace / "models" / digest).absolute(),
            )  # fmt: skip
    (study / STUDY).write_text(text)
    for step in STEPS:
        app([step, str(study / STUDY)], standalone_mode=False)
    made = read_study(study / STUDY)
    found = {}
    for recipe in made.recipes:
        parts = (study / "precision" / "predictions" / declared_spec(made, recipe).key).glob("prediction-*.parquet")
        found[recipe.key] = pl.concat([pl.read_parquet(part) for part in sorted(parts)])
    return found


def row_of(model: dict[str, Any], both: pl.DataFrame) -> dict[str, Any]:
    values, scores = (
        (both[f"{what}_{PRECISIONS[0]}"].to_numpy(), both[f"{what}_{PRECISIONS[1]}"].to_numpy()) for what in ("value", "score")
    )
    found = compared(values, scores, locked=model["threshold"]["score_cut"])
    share = proportion(found["n"] - found["n_moved"], found["n"])
    named = {"recipe": model["recipe"], "network": model["parameters"]["network"]}
    return {**named, **found, "agree_lower": share.lower, "agree_upper": share.upper}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--studies", type=Path, nargs="+", required=True)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    models = networks(given.workspace)
    pairs: dict[str, list[pl.DataFrame]] = {digest: [] for digest in models}
    for study in given.studies:
        found = predicted(study, given.workspace, models)
        for digest, some in pairs.items():
            one, other = (
                found[f"{digest}_{precision}"].select(
                    "item_digest", pl.col("score").name.suffix(f"_{precision}"), value=pl.col("predicted_value")
                ).rename({"value": f"value_{precision}"})
                for precision in PRECISIONS
            )  # fmt: skip
            some.append(one.join(other, on="item_digest", validate="1:1"))
    rows = [row_of(models[digest], pl.concat(some)) for digest, some in pairs.items()]
    for row in rows:
        print(
            f"{row['recipe']:18} {row['network']:15} {in_words(row)} ({row['agree_lower']:.4f} to {row['agree_upper']:.4f}), "
            f"{row['n_moved']} moved, all within {row['farthest_of_moved']:.2g} of the threshold",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
