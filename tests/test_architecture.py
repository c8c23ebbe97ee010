"""Imports go down, columns never touch, modules stay small, and every seam of the plan holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ospor_batch.contracts import contract, contract_names

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "ospor_batch").rglob("*.py"))


def test_floors_and_seams_hold() -> None:
    said = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--config", str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout[-4000:] + said.stderr[-2000:]


def test_a_flow_stays_under_eighty_lines() -> None:
    long = {p.name: n for p in (ROOT / "flows").glob("*.py") if (n := len(p.read_text().splitlines())) >= 80}
    assert not long


def test_a_module_stays_under_its_size() -> None:
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 460}
    assert not long


def test_no_drawer_modules() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [p for p in SOURCES if p.stem in drawers]


def test_no_pickle_is_loaded() -> None:
    guilty = [
        p for p in SOURCES if any(word in p.read_text() for word in ("import pickle", "torch.load(", "allow_pickle=True"))
    ]
    assert not guilty


@pytest.mark.parametrize("name", contract_names())
def test_a_shared_table_has_no_private_column(name: str) -> None:
    of = contract(name)
    if of.access == "shared":
        assert not [f.name for f in of.fields if f.access == "private"]


@pytest.mark.parametrize("name", contract_names())
def test_numbers_have_units(name: str) -> None:
    assert not [f.name for f in contract(name).fields if f.type in {"number", "integer"} and not f.unit]


@pytest.mark.parametrize("module", ["contracts", "compute", "imaging", "models", "inference"])
def test_a_worker_needs_no_polars_deltalake_or_prefect(module: str) -> None:
    script = f"""
import importlib, pkgutil, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {{'polars', 'deltalake', 'prefect'}}:
            raise ImportError(name + ' is blocked')
sys.meta_path.insert(0, Blocked())
package = importlib.import_module('ospor_batch.{module}')
for found in pkgutil.iter_modules(package.__path__):
    if ('{module}', found.name) != ('contracts', 'table'):
        importlib.import_module(f'ospor_batch.{module}.{{found.name}}')
"""
    said = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr[-2000:]
