"""The same plan under Prefect: a study, a night that reads only what is new, and a schedule that really fires."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from ospor_batch.config import read_study
from ospor_batch.plan import run_study
from ospor_batch.runs import latest_run
from ospor_batch.store import Store
from ospor_batch.synthetic.archive import add_night, write_study

ROOT = Path(__file__).resolve().parents[2]
SCHEDULE_LIMIT_S = 360  # a cron of every minute fires within 60 s; the rest is for the run itself on a busy machine

pytestmark = pytest.mark.flows


def under_prefect(server: Any, flow: str, study_file: Path) -> None:
    module, name = flow.split(":")
    script = f"import sys; from {module} import {name}; print({name}(sys.argv[1]))"
    said = subprocess.run(
        [sys.executable, "-c", script, str(study_file)],
        env=server.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert said.returncode == 0, said.stderr[-4000:]


def tables(study_file: Path) -> dict[str, bytes]:
    run = latest_run(Store(read_study(study_file).workspace))
    assert run is not None
    return {path.name: path.read_bytes() for path in sorted((run.folder / "tables").glob("*.csv"))}


def ask(server: Any, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{server.url}/{path}", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_a_study_and_a_night_under_prefect_equal_a_clean_run(server: Any, tmp_path: Path) -> None:
    grown = write_study(tmp_path / "grown", preset="tiny")
    under_prefect(server, "flows.study:run_study", grown)
    store = Store(read_study(grown).workspace)
    before = store.sweeps()
    known = store.current("file").height
    counted = {artifact["key"] for artifact in ask(server, "artifacts/latest/filter", {})}
    assert {"ospor-crawl-north", "ospor-match", "ospor-infer"} <= counted

    add_night(tmp_path / "grown")
    under_prefect(server, "flows.sweep:run_sweep", grown)
    night = store.sweeps().filter(store.sweeps()["sweep_number"] > before["sweep_number"].max())
    n_arrived = store.current("file").height - known
    assert n_arrived > 0
    assert night.filter(night["stage"] == "crawl")["n_read"].sum() == n_arrived

    clean = write_study(tmp_path / "clean", preset="tiny", nights=2)
    run_study(read_study(clean))
    assert tables(grown) == tables(clean)


def test_a_scheduled_sweep_fires(server: Any, tmp_path: Path) -> None:
    study_file = write_study(tmp_path / "nightly", preset="tiny")
    deployed = yaml.safe_load((ROOT / "infra" / "prefect.yaml").read_text())
    assert {d["name"] for d in deployed["deployments"]} == {"study", "sweep"}
    for deployment in deployed["deployments"]:
        for schedule in deployment.get("schedules", []):
            assert len(schedule["cron"].split()) == 5
            schedule["cron"] = "* * * * *"  # what is changed for the test: a night every minute
    prefect_file = tmp_path / "prefect.yaml"
    prefect_file.write_text(yaml.safe_dump(deployed))
    environment = {**server.environment, "OSPOR_HOME": str(ROOT), "OSPOR_STUDY": str(study_file)}
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    for words in (
        ["work-pool", "create", "ospor", "--type", "process"],
        ["deploy", "--all", "--prefect-file", str(prefect_file)],
    ):
        said = subprocess.run([*prefect, *words], env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout[-2000:] + said.stderr[-2000:]

    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [*prefect, "worker", "start", "--pool", "ospor", "--type", "process"],
            env=environment,
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            fired = _scheduled_and_completed(server)
        finally:
            worker.terminate()
            worker.wait(timeout=60)
    assert fired, (tmp_path / "worker.log").read_text(errors="replace")[-4000:]
    assert latest_run(Store(read_study(study_file).workspace)) is not None


def _scheduled_and_completed(server: Any) -> bool:
    limit = time.monotonic() + SCHEDULE_LIMIT_S
    asked = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}, "deployment_id": {"is_null_": False}}}
    while time.monotonic() < limit:
        runs = ask(server, "flow_runs/filter", asked)
        if any(run["auto_scheduled"] for run in runs):
            return True
        time.sleep(3)
    return False
