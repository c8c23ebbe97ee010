"""A generated study, from archive to report: every person's fate and every step of the flow is what the truth says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ospor_batch.config import Study, read_key, read_study
from ospor_batch.plan import run_study, split_key
from ospor_batch.pseudonym import pseudonym
from ospor_batch.runs import Run, all_runs, latest_run
from ospor_batch.stages.status import ledger
from ospor_batch.store import Store
from ospor_batch.synthetic.archive import PRESETS, SEED, Night, people_of, write_study
from ospor_batch.synthetic.population import CENTERS
from tests.end_to_end.expected_flow import (
    Archive,
    Left,
    left_as_too_young,
    left_in_catalog,
    left_in_recipe,
    read_archives,
)

END = 6  # bytes: no identifier that is looked for is shorter, but for a few names
DXA, QCT = "mean_hu_dxa", "mean_hu_qct"


@dataclass(frozen=True)
class Generated:
    """A generated study that ran to its end, with what is true of it."""

    study: Study
    store: Store
    run: Run
    truth: pl.DataFrame
    archive: Archive


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    study_file = write_study(tmp_path_factory.mktemp("generated"), preset="tiny")
    study = read_study(study_file)
    truth = pl.read_parquet(study.folder / "truth.parquet")
    archive = read_archives(study.folder / "archives", truth)
    run = run_study(study)
    return Generated(study, Store(study.workspace), run, truth, archive)


def people(generated: Generated) -> pl.DataFrame:
    """The truth with the pseudonym of each person."""
    key = read_key(generated.study)
    keys = [
        pseudonym(patient_id, kind="patient", issuer=center, key=key)
        for center, patient_id in generated.truth.select("center", "patient_id").iter_rows()
    ]
    return generated.truth.with_columns(patient_key=pl.Series(keys, dtype=pl.String))


def test_every_person_has_the_role_the_truth_says(generated: Generated) -> None:
    manifest = generated.run.read("manifest").filter(pl.col("recipe") == DXA)
    roles = manifest.group_by("patient_key").agg(pl.col("role").unique())
    found = people(generated).join(roles, on="patient_key", how="left")
    for person in found.iter_rows(named=True):
        role = "excluded" if person["role"] is None else person["role"][0]
        assert role == person["expected_role"], person


def test_the_match_and_its_label_are_the_ones_that_were_planted(generated: Generated) -> None:
    manifest = generated.run.read("manifest").filter((pl.col("recipe") == DXA) & pl.col("is_performance_index"))
    found = people(generated).join(manifest, on="patient_key", suffix="_found")
    assert found.height == (generated.truth["expected_role"] == "paired").sum()
    for person in found.iter_rows(named=True):
        assert person["gap_days"] == person["expected_gap_days"], person
        assert person["label_value"] == pytest.approx(person["lowest_t"]), person
        assert person["is_osteoporosis_found"] == person["is_osteoporosis"], person
        assert person["scanner_vendor_found"] == person["scanner_vendor"], person


def test_qct_labels_are_their_own_reference(generated: Generated) -> None:
    manifest = generated.run.read("manifest").filter((pl.col("recipe") == QCT) & pl.col("is_performance_index"))
    found = people(generated).join(manifest, on="patient_key", suffix="_found")
    expected = generated.truth.filter(pl.col("qct_vbmd_mg_cm3").is_not_null())
    assert found.height == expected.height
    assert (found["label_value"] - found["qct_vbmd_mg_cm3"]).abs().max() < 1e-9
    assert (found["is_osteoporosis_found"] == (found["qct_vbmd_mg_cm3"] < 80)).all()


def test_predictions_are_those_expected_and_near_the_declared_line(generated: Generated) -> None:
    manifest = generated.run.read("manifest").filter(pl.col("recipe") == DXA)
    predicted = generated.run.read("prediction").select("item_digest", "predicted_value", "n_vertebrae", "levels")
    found = people(generated).join(manifest, on="patient_key").join(predicted, on="item_digest", how="left")
    assert (found["predicted_value"].is_not_null() == found["expected_prediction"]).all()
    measured = found.filter(pl.col("predicted_value").is_not_null())
    assert set(measured["levels"]) == {"L1+L2+L3+L4"}
    # noise averages out over thousands of voxels; partial volume at the rim of the bodies does not quite
    assert (measured["predicted_value"] - measured["expected_mean_hu"]).abs().max() < 6


def flow_of(generated: Generated, recipe: str) -> pl.DataFrame:
    return generated.run.read("attrition", under="tables").filter(pl.col("recipe") == recipe)


def compare(rows: pl.DataFrame, expected: Left, *, levels: list[str]) -> None:
    """Each step of these levels took as many as expected, and the others none."""
    found: Left = Counter()
    for r in rows.filter(pl.col("level").is_in(levels)).iter_rows(named=True):
        found[r["center"], r["level"], r["step"], r["reason"]] += r["n_excluded"]
    assert {k: n for k, n in found.items() if n} == {k: n for k, n in expected.items() if n and k[1] in levels}


def test_every_catalog_step_takes_what_was_planted(generated: Generated) -> None:
    rows = flow_of(generated, "catalog")
    expected = left_in_catalog(generated.archive, generated.truth)
    compare(rows, expected, levels=["file", "instance", "export_row"])
    everyone = people_of(
        [Night(1, SEED, {c.name: (1, PRESETS["tiny"].per_center) for c in CENTERS})], rates=PRESETS["tiny"].rates
    )
    compare(rows, left_as_too_young(everyone), levels=["exam"])
    first = rows.filter(pl.col("level") == "file").sort("step_number").group_by("center").agg(pl.col("n_in").first())
    assert dict(first.iter_rows()) == dict(generated.archive.n_files)


def test_every_file_has_the_fate_the_truth_says(generated: Generated) -> None:
    truth = pl.read_parquet(generated.study.folder / "truth_file.parquet")
    files = generated.store.current("file").select("center", "path", "file_key", "fate", "reason")
    refused = generated.store.current("reject").filter((pl.col("stage") == "catalog") & (pl.col("level") == "instance"))
    found = truth.join(files, on=["center", "path"], how="full", coalesce=True).join(
        refused.select("center", file_key="item_key", copy_reason="reason"), on=["center", "file_key"], how="left"
    )
    assert found.height == truth.height == files.height
    assert found["fate"].to_list() == found["expected_crawl"].to_list()
    assert found["reason"].to_list() == found["expected_crawl_reason"].to_list()
    assert found.filter((pl.col("expected_catalog") == "series") & pl.col("copy_reason").is_not_null()).height == 0
    copies = found.filter(pl.col("expected_catalog") == "one_of_copies")
    assert copies.height > 0
    for _, group in copies.group_by("center", "sop_instance_uid"):
        assert group["copy_reason"].null_count() == 1, "one of the copies stays"
        assert set(group["copy_reason"].drop_nulls()) == set(group["expected_catalog_reason"])


def test_every_recipe_step_takes_what_was_planted(generated: Generated) -> None:
    study = generated.study
    expected = left_in_recipe(generated.archive, generated.truth, seed_key=split_key(study), tuning=study.split.tuning)
    compare(flow_of(generated, DXA), expected, levels=["series", "study", "person"])


def test_the_flow_ends_at_the_n_of_the_table(generated: Generated) -> None:
    people_left = flow_of(generated, DXA).filter(pl.col("level") == "person").sort("step_number")
    last = people_left.group_by("center").agg(pl.col("n_out").last())
    performance = generated.run.read("performance", under="tables").filter(
        (pl.col("recipe") == DXA) & (pl.col("metric") == "sensitivity") & (pl.col("partition") == "test")
    )
    whole = performance.filter((pl.col("stratum") == "overall") & (pl.col("is_same_acquisition") == "all"))
    assert whole["n_persons"].item() == last["n_out"].sum()


def test_the_ledger_closes(generated: Generated) -> None:
    summaries = ledger(generated.study, generated.store)
    assert len(summaries) == 4 * 3 + len(generated.study.recipes) * 4 * 2
    assert all(summary.closes for summary in summaries)


def standing_in(body: bytes, values: set[str]) -> list[str]:
    """Values that stand in the bytes and no digit touches: the offsets of a PDF are runs of digits."""
    wide = np.zeros(max(0, len(body) - END + 1), np.uint64)
    for place in range(END):
        wide |= np.frombuffer(body, np.uint8)[place : place + wide.size].astype(np.uint64) << np.uint64(8 * place)
    ends = {value: value.encode()[-END:] for value in values}
    wanted = np.array([int.from_bytes(end, "little") for end in ends.values()], np.uint64)
    there = set(wide[np.isin(wide, wanted)].tolist())
    near = [value for value, end in sorted(ends.items()) if len(end) < END or int.from_bytes(end, "little") in there]
    return [v for v in near if re.search(rb"(?<![0-9])" + re.escape(v.encode()) + rb"(?![0-9])", body)]


def test_what_stands_in_bytes_is_found() -> None:
    values = {"N1000034", "1.2.826.77", "김", "04210011"}
    body = "x N1000034, 김, 1.2.826.77.5, 1042100112".encode()
    assert standing_in(body, values) == ["1.2.826.77", "N1000034", "김"]
    assert standing_in(b"", values) == []


def test_no_identifier_leaves_the_private_folder(generated: Generated) -> None:
    instances = generated.store.current("instance")
    columns = ("patient_id", "sop_instance_uid", "series_instance_uid", "study_instance_uid")
    values = {v for column in columns for v in instances[column].drop_nulls() if len(v.strip()) >= 6}
    values |= {"김", "王", "archives/north/"}
    private = generated.store.private
    shown = [p for p in generated.study.workspace.rglob("*") if p.is_file() and private not in p.parents]
    assert len(shown) > 20
    for path in shown:
        assert not standing_in(path.read_bytes(), values), path


def files_of(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_a_second_run_does_no_work_and_changes_no_byte(generated: Generated) -> None:
    before, sweeps = files_of(generated.study.workspace / "runs"), generated.store.sweeps().height
    predictions = files_of(generated.study.workspace / "predictions")
    again = run_study(generated.study)
    assert again.run_id == generated.run.run_id
    assert files_of(generated.study.workspace / "runs") == before
    assert files_of(generated.study.workspace / "predictions") == predictions
    assert generated.store.sweeps().height == sweeps


def test_a_killed_run_is_completed_by_the_next_with_the_same_tables(generated: Generated, tmp_path: Path) -> None:
    study_file = write_study(tmp_path / "killed", preset="tiny")
    text = study_file.read_text()
    assert 'cluster = "in_line"' in text
    # small shards, so that some are finished and some are not
    study_file.write_text(text.replace('cluster = "in_line"', 'cluster = "in_line"\nshard_megabytes = 1'))
    study = read_study(study_file)
    command = [sys.executable, "-m", "ospor_batch.cli", "run", str(study_file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    parts = study.workspace / "predictions"
    limit = time.monotonic() + 240
    while not list(parts.glob("*/prediction-*.parquet")) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    store = Store(study.workspace)
    assert latest_run(store) is None, "the run ended before it could be killed"
    finished = files_of(parts)
    assert finished
    begun = all_runs(store)[0].run_id

    said = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout)["run_id"] == begun
    assert {name: digest for name, digest in files_of(parts).items() if name in finished} == finished
    run = latest_run(store)
    assert run is not None
    assert files_of(run.folder / "tables") == _without_run(generated, run)


def _without_run(generated: Generated, run: Run) -> dict[str, str]:
    """Digests of the undisturbed run's tables; Parquet files carry the run's id, so they are compared as rows."""
    other = generated.run.folder / "tables"
    found = {}
    for name, digest in files_of(run.folder / "tables").items():
        if name.endswith(".csv"):
            found[name] = hashlib.sha256((other / name).read_bytes()).hexdigest()
        else:
            assert pl.read_parquet(other / name).equals(pl.read_parquet(run.folder / "tables" / name)), name
            found[name] = digest
    return found
